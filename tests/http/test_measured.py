"""What is said of aiohttp's parser, how many bytes it still needs for a body, is what it does."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser

from mmserve.http.heads import UNKNOWN, measured
from tests.http.raw import post

PARTS = [
    b"POST /predictions/linear HTTP/1.1\r\n",
    b"Host: test\r\n",
    b"Content-Length: 7\r\n",
    b"X-A: b\r\n",
    b"\r\n",
    b"[[1.5]]",
]
ODD = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\r\n ", b"\r\n\t", b"\n\n", b"\0", b"\xff", b"abc", b"1\r\na\r\n0\r\n\r\n"),
    *(
        b"Content-Length: 1\r\n 0\r\n",
        b"Content-Length:\r\n 3\r\n",
        b"Content-Length: 0003\r\n",
        b"Content-Length : 3\r\n",
    ),
    *(
        b"Content-Length: +3\r\n",
        b"Content-Length: 3,3\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n", b"transfer-encoding: xchunked\r\n"),
    *(
        b"Upgrade: h2c\r\n",
        b"Connection: upgrade\r\n",
        b"GET / HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"POST /y\r\n",
    ),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
STREAMS = 6000
# Larger bodies are not sent.
LARGEST = 1000


def mutated(rng: random.Random) -> bytes:
    parts = [*PARTS]
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(parts))
        parts[place : place + rng.randrange(2)] = [rng.choice(ODD)]
    stream = b"".join(parts)
    at = rng.randrange(len(stream))
    if rng.random() < 0.3:
        stream = stream[:at] + rng.choice(ODD) + stream[at:]
    return stream[: rng.randrange(len(stream)) + 1] if rng.random() < 0.3 else stream


def fed(parser: HttpRequestParser, data: bytes) -> Any:
    """The only message that begins in these bytes, with its body; None if there is none or more, or they are wrong."""
    try:
        messages, _, _ = parser.feed_data(data)
    except Exception:  # whatever the parser has against it
        return None
    return messages[0] if len(messages) == 1 else None


def test_what_is_measured_is_where_the_parser_is() -> None:
    loop = asyncio.new_event_loop()
    rng = random.Random(5)
    checked = 0
    for _ in range(STREAMS):
        data = mutated(rng)
        protocol = BaseProtocol(loop)
        parser = HttpRequestParser(protocol, loop, 1 << 16, payload_exception=ValueError, max_msg_queue_size=32)
        protocol._parser = parser
        found = fed(parser, data)
        head, ahead = measured(found[0], data) if found is not None else (b"", UNKNOWN)
        if ahead == UNKNOWN or ahead > LARGEST:
            continue
        checked += 1
        body = found[1]
        assert data.startswith(head), data
        assert body.is_eof() == (not ahead), data
        assert not parser.feed_data(b"x" * ahead)[0], data
        assert body.is_eof(), data
        if not found[0].should_close:
            probe = fed(parser, post("/probe"))
            assert probe is not None, data
            assert (probe[0].path, len(probe[0].headers)) == ("/probe", 2), data
    loop.close()
    assert checked > STREAMS / 10
