"""Content types to arrays, and answers to content types. One module per family of formats.

Nothing in here knows of models: what rows are to a model is for its handler to say. And nothing in here may
raise anything but CallError, whatever bytes a caller sends.

    request                                        becomes
    application/json, no content type, */*, form   arrays, records, {"instances": ..}, {"inputs": ..}
    application/jsonlines, -x-jsonlines, -x-ndjson a row a line
    text/csv                                       a row a line, with or without a header
    application/x-npy                              a read-only view of the body
    application/x-npz                              the only array in it, or the one with a usual name

    any other content type     415        a body that is no such format, is empty, ragged or a scalar     400
    an Accept without any of JSON, CSV, JSON Lines and npy     406

An answer has one entry, line or row for each row of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from mmserve_worker.calls import Buffer, Reply
from mmserve_worker.codecs import csv_text, json_text, media_types, npy, npz
from mmserve_worker.codecs.answers import Answer
from mmserve_worker.codecs.refusals import bad_request, not_acceptable, quoted, unsupported_media_type
from mmserve_worker.codecs.rows import Rows

Writer = Callable[[Answer], Reply]

_JSON = "application/json"
_JSON_LINES = ("application/jsonlines", "application/x-jsonlines", "application/x-ndjson")

_TEXT_READERS: dict[str, Callable[[str, tuple[str, ...]], Rows]] = {
    _JSON: json_text.decode,
    "": json_text.decode,
    "*/*": json_text.decode,
    # What `curl -d` says unless it is told otherwise; a form is nothing that a model could be asked.
    "application/x-www-form-urlencoded": json_text.decode,
    "text/csv": csv_text.decode,
    **dict.fromkeys(_JSON_LINES, json_text.decode_lines),
}
_BINARY_READERS: dict[str, Callable[[Buffer], Rows]] = {
    "application/x-npy": npy.decode,
    "application/x-npz": npz.decode,
}
# In the order in which they are chosen where the caller has no preference.
_ENCODERS: dict[str, Callable[[Answer], Buffer | tuple[Buffer, ...]]] = {
    _JSON: json_text.encode,
    "text/csv": csv_text.encode,
    **dict.fromkeys(_JSON_LINES, json_text.encode_lines),
    "application/x-npy": npy.encode,
}


def decode(body: Buffer, content_type: str, names: tuple[str, ...] = ()) -> Rows:
    """The rows of a request. `names` are the columns that the model knows by name, if any."""
    if not len(body):
        raise bad_request("the body is empty")
    return _reader(content_type)(body, names)


def writer(accept: str) -> Writer:
    """What writes the answers of callers who sent this Accept header."""
    chosen = _writer(accept)
    if chosen is None:
        raise not_acceptable(f"cannot answer {quoted(accept)}: there is {', '.join(_ENCODERS)}")
    return chosen


def is_json(write: Writer) -> bool:
    """Whether a writer makes what `json_replies` makes."""
    return write is _WRITERS[_JSON]


def json_replies(answer: Answer, sizes: Sequence[int]) -> list[Reply] | None:
    """The answers in JSON to callers of whom each had so many rows; None for what each one's writer has to write."""
    texts = json_text.encode_each(answer, sizes)
    return None if texts is None else [Reply(200, _JSON, text) for text in texts]


# The header of a hostile caller is as long as the front lets it be: few entries, or the cache is a leak.
@lru_cache(maxsize=16)
def _reader(content_type: str) -> Callable[[Buffer, tuple[str, ...]], Rows]:
    media_type, charset = media_types.split(content_type)
    if read_binary := _BINARY_READERS.get(media_type):
        return lambda body, names: read_binary(body)
    read_text = _TEXT_READERS.get(media_type)
    if read_text is None:
        types = ", ".join(name for name in (*_TEXT_READERS, *_BINARY_READERS) if "*" not in name and name)
        raise unsupported_media_type(f"{quoted(media_type)} is not supported: send one of {types}")

    def read(body: Buffer, names: tuple[str, ...]) -> Rows:
        try:
            text = str(body, charset)
        except UnicodeDecodeError as error:
            raise bad_request(f"the body is not {charset}: {error.reason} at byte {error.start}") from None
        # Windows' editors begin a text with a byte order mark.
        return read_text(text.removeprefix("\ufeff"), names)

    return read


@lru_cache(maxsize=16)
def _writer(accept: str) -> Writer | None:
    media_type = media_types.preferred(accept, tuple(_ENCODERS))
    if media_type is None:
        return None
    return _WRITERS[media_type]


def _writer_of(media_type: str) -> Writer:
    encode = _ENCODERS[media_type]
    return lambda answer: Reply(200, media_type, encode(answer))


_WRITERS = {media_type: _writer_of(media_type) for media_type in _ENCODERS}
