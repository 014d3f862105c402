"""A request's body as the content entries of a DJL Input: one called `data`, or one for each field of a form."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from urllib.parse import parse_qsl

from mmserve_worker.calls import Call
from mmserve_worker.codecs.refusals import bad_request


def entries(call: Call) -> Iterator[tuple[str, bytearray]]:
    media_type = call.content_type.partition(";")[0].strip().lower()
    # `curl -d` says that everything is a form; what has no field is none.
    if media_type == "application/x-www-form-urlencoded" and b"=" in bytes(call.body):
        yield from _fields(bytes(call.body))
    elif media_type == "multipart/form-data":
        yield from _parts(call)
    elif len(call.body):
        # A bytearray of its own: handlers may keep it, or write to it, and the body is the channel's memory.
        yield "data", bytearray(call.body)


def _fields(body: bytes) -> Iterator[tuple[str, bytearray]]:
    for name, value in parse_qsl(body, keep_blank_values=True):
        yield name.decode("utf-8", "replace"), bytearray(value)


def _parts(call: Call) -> Iterator[tuple[str, bytearray]]:
    head = f"Content-Type: {call.content_type}\r\n\r\n".encode("latin-1", "replace")
    form: Message = BytesParser().parsebytes(head + bytes(call.body))
    if not form.is_multipart():
        raise bad_request("not multipart: its boundary is missing")
    for part in form.walk():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            yield name, bytearray(payload)
