"""Streams of bytes for a server of HTTP: what real clients send, what is meant to be read in two ways, and both of them
mutated and cut into writes at every place.

Each request asks a model with a number of its own, which its answer shows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Answers x + 1 and 2x + 1.
ONE, TWO = b"/predictions/shop-00002", b"/predictions/shop-00003"
# Where a request's own number comes, and that of another request in its body. All have as many digits, so that heads
# are the same again.
_OWN, _INNER = b"1111111", b"2222222"
_FIRST_NUMBER = 3_000_000
_BODY = b"[[%b]]" % _OWN


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes, and where they are cut into writes."""

    content: bytes
    cuts: Sequence[int]
    # What its requests predict, in their order; None of a stream of which nobody knows.
    expected: Sequence[float] | None
    # All of that has to be answered. Otherwise the connection may end before, for one reason or another.
    is_whole: bool = False

    def pieces(self) -> list[bytes]:
        return [self.content[start:end] for start, end in zip([0, *self.cuts], [*self.cuts, None], strict=True)]


@dataclass(frozen=True, slots=True)
class Seed:
    """A request, or what pretends to be one. `slope` of the model that answers it, 0 for an answer of another kind."""

    content: bytes
    slope: float = 0.0
    # Nothing that comes after it is understood.
    is_last: bool = False


def _post(path: bytes, *headers: bytes, body: bytes = _BODY, version: bytes = b"1.1") -> bytes:
    lines = [b"POST %b HTTP/%b" % (path, version), b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _framed(*headers: bytes, body: bytes = _BODY, end: bytes = b"\r\n") -> bytes:
    """A request that says about its body only what these headers say."""
    return end.join([b"POST %b HTTP/1.1" % ONE, b"Host: x", *headers]) + end + end + body


def _chunks(*chunks: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks) + b"0\r\n" + trailer + b"\r\n"


_INNER_POST = _post(TWO, body=b"[[%b]]" % _INNER)
_CHUNKED = b"Transfer-Encoding: chunked"

# What is understood, and leaves the connection to the next request.
USUAL = (
    Seed(_post(ONE), 1.0),
    Seed(_post(ONE), 1.0),
    Seed(_post(ONE), 1.0),
    Seed(_post(TWO), 2.0),
    Seed(_post(TWO, b"Content-Type: application/json", b"x-request-id: 7"), 2.0),
    Seed(_post(ONE, b"Content-Type: application/json", b"Accept: */*", b"User-Agent: known"), 1.0),
    Seed(_post(ONE + b"?method=predict", b"x-priority: 1"), 1.0),
    Seed(_post(b"/invocations", b"X-Amzn-SageMaker-Target-Model: shop-00002.tar.gz"), 1.0),
    Seed(_post(b"/endpoints/any/invocations", b"X-Amzn-SageMaker-Target-Model: shop-00003.tar.gz"), 2.0),
    Seed(_post(b"/models/shop-00003/invoke"), 2.0),
    Seed(_post(b"http://x" + ONE), 1.0),
    Seed(_framed(_CHUNKED, body=_chunks(_BODY)), 1.0),
    Seed(_framed(_CHUNKED, body=_chunks(b"[", _BODY[1:-1], b"]")), 1.0),
    Seed(_framed(_CHUNKED, body=_chunks(_BODY, extension=b";name=value")), 1.0),
    Seed(_framed(_CHUNKED, body=_chunks(_BODY, trailer=b"X-After: 1\r\n")), 1.0),
    Seed(b"\r\n" + _post(ONE), 1.0),
    Seed(_post(ONE, b"Expect: 100-continue"), 1.0),
    Seed(_post(ONE, b"x-priority: high")),
    Seed(_post(ONE, body=b"[[%b]" % _OWN)),
    Seed(_post(b"/predictions/unknown")),
    # A whole request as the body of another.
    Seed(_post(ONE, body=_INNER_POST)),
    Seed(_framed(_CHUNKED, body=_chunks(_INNER_POST))),
    Seed(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"),
    Seed(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % ONE),
)
# What ends the connection, or may.
LAST = (
    Seed(_post(ONE, b"Connection: close"), 1.0, is_last=True),
    Seed(_post(ONE, version=b"1.0"), 1.0, is_last=True),
    Seed(_post(ONE, b"Upgrade: websocket", b"Connection: upgrade"), 1.0, is_last=True),
    Seed(_post(ONE, b"Upgrade: h2c", b"Connection: upgrade, HTTP2-Settings"), 1.0, is_last=True),
    Seed(_post(ONE, b"Content-Encoding: gzip"), is_last=True),
    # A length and chunks, in both orders; two lengths; chunks as others spell them.
    Seed(_framed(b"Content-Length: 11", _CHUNKED, body=b"0\r\n\r\n" + _INNER_POST), is_last=True),
    Seed(_framed(_CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + _INNER_POST), is_last=True),
    Seed(_framed(b"Content-Length: 0", b"Content-Length: 11", body=_INNER_POST), is_last=True),
    Seed(_framed(b"Content-Length: 0, 11", body=_INNER_POST), is_last=True),
    Seed(_framed(b"Content-Length: +11"), is_last=True),
    Seed(_framed(b"Content-Length : 11"), is_last=True),
    Seed(_framed(b"Content-Length: 1_1"), is_last=True),
    Seed(_framed(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + _INNER_POST), is_last=True),
    Seed(_framed(b"Transfer-Encoding: identity", body=_INNER_POST), is_last=True),
    Seed(_framed(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + _INNER_POST), is_last=True),
    Seed(_framed(b"Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + _INNER_POST), is_last=True),
    Seed(_framed(_CHUNKED, _CHUNKED, body=b"0\r\n\r\n" + _INNER_POST), is_last=True),
    Seed(_framed(_CHUNKED, body=b"0x0\r\n\r\n" + _INNER_POST), is_last=True),
    # Lines that others fold, or end in another way.
    Seed(_framed(b"X-Folded: a", b" Content-Length: 11", body=_INNER_POST), is_last=True),
    Seed(_framed(b"X-Folded: a", b" b", b"Content-Length: 11"), is_last=True),
    Seed(_framed(b"Content-Length: 11", end=b"\n"), is_last=True),
    Seed(_framed(b"X-Bare: a\nContent-Length: 11", body=_INNER_POST), is_last=True),
    Seed(_framed(b"X-Bare: a\rContent-Length: 11", body=_INNER_POST), is_last=True),
    Seed(_framed(b"X-Nil: a\0b", b"Content-Length: 11"), is_last=True),
    Seed(b"POST %b\r\n\r\n" % ONE, is_last=True),
)
_TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"0\r\n\r\n", b"chunked", b"\xff", b"HTTP/1.1", b"\r\n\r\n"),
    *(
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
    ),
)
# Where a client would cut: before a request, and before its body.
_NATURAL = re.compile(rb"(?<=\r\n\r\n)|(?=POST /)|(?=GET /)")


def streams(seed: int) -> Iterator[Stream]:
    """Without end, and the same for the same seed."""
    chance = random.Random(seed)
    number = _FIRST_NUMBER
    # The classics each by itself first, so that however few are tried, these are.
    for one in (*USUAL, *LAST):
        number += 2
        yield _stream([one], number, chance, mutations=0)
    while True:
        seeds = chance.choices(USUAL, k=chance.randint(1, 4))
        if chance.random() < 0.3:
            seeds.insert(chance.randrange(len(seeds) + 1), chance.choice(LAST))
        number += 2 * len(seeds)
        yield _stream(seeds, number, chance, mutations=chance.choice((0, 0, 1, 1, 2, 4)))


def _stream(seeds: Sequence[Seed], number: int, chance: random.Random, *, mutations: int) -> Stream:
    content = b""
    expected: list[float] = []
    ended, is_whole = False, not mutations
    for place, seed in enumerate(seeds):
        own = number + 2 * place
        content += seed.content.replace(_OWN, b"%d" % own).replace(_INNER, b"%d" % (own + 1))
        if seed.slope and not ended:
            expected.append(seed.slope * own + 1.0)
        ended |= seed.is_last
        is_whole &= not seed.is_last
    for _ in range(mutations):
        content = _mutated(content, chance)
    cuts = {0, len(content)}
    if chance.random() < 0.6:
        cuts.update(match.start() for match in _NATURAL.finditer(content) if chance.random() < 0.8)
    for _ in range(chance.choice((0, 0, 1, 2, 4))):
        cuts.add(chance.randrange(len(content) + 1))
    return Stream(content, sorted(cuts)[1:-1], None if mutations else expected, is_whole=is_whole)


def _mutated(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    until = min(len(content), at + chance.choice((1, 1, 2, 8, 40)))
    match chance.randrange(6):
        case 0:
            return content[:at] + content[until:]
        case 1:
            return content[:until] + content[at:]
        case 2:
            return content[:at] + chance.choice(_TOKENS) + content[at:]
        case 3:
            return content[:at] + bytes([chance.randrange(256)]) + content[min(len(content), at + 1) :]
        case 4:
            # At the end of a line, where a header may stand.
            ends = [match.end() for match in re.finditer(rb"\r\n", content)]
            at = chance.choice(ends) if ends else at
            return content[:at] + chance.choice(_TOKENS) + content[at:]
    return content[:at]
