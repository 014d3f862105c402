"""A request's body as the fields of a form, for contracts that hand them to a model's code one by one."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from typing import NamedTuple
from urllib.parse import parse_qsl

from mmserve_worker.calls import Call
from mmserve_worker.codecs.refusals import bad_request


class Field(NamedTuple):
    name: str
    value: bytearray
    # Empty where the form does not say it.
    content_type: str = ""


def fields(call: Call) -> Iterator[Field] | None:
    """None where the body is no form."""
    media_type = call.content_type.partition(";")[0].strip().lower()
    # `curl -d` says that everything is a form; what has no field is none.
    if media_type == "application/x-www-form-urlencoded" and b"=" in bytes(call.body):
        return _pairs(bytes(call.body))
    return _parts(call) if media_type == "multipart/form-data" else None


def _pairs(body: bytes) -> Iterator[Field]:
    for name, value in parse_qsl(body, keep_blank_values=True):
        yield Field(name.decode("utf-8", "replace"), bytearray(value))


def _parts(call: Call) -> Iterator[Field]:
    head = f"Content-Type: {call.content_type}\r\n\r\n".encode("latin-1", "replace")
    form: Message = BytesParser().parsebytes(head + bytes(call.body))
    if not form.is_multipart():
        raise bad_request("not multipart: its boundary is missing")
    for part in form.walk():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            yield Field(name, bytearray(payload), part.get_content_type() if "content-type" in part else "")
