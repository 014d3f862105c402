"""A request's body as the content entries of a DJL Input: one called `data`, or one for each field of a form."""

from __future__ import annotations

from collections.abc import Iterator

from mmserve_worker.calls import Call
from mmserve_worker.handlers import forms


def entries(call: Call) -> Iterator[tuple[str, bytearray]]:
    fields = forms.fields(call)
    if fields is not None:
        yield from ((field.name, field.value) for field in fields)
    elif len(call.body):
        # A bytearray of its own: handlers may keep it, or write to it, and the body is the channel's memory.
        yield "data", bytearray(call.body)
