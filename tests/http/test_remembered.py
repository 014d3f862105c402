"""What is kept of requests is what comes again, and is bounded in memory whatever clients make up."""

from __future__ import annotations

from aiohttp import hdrs
from aiohttp.http_parser import RawRequestMessage
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from mmserve.http.connection import END
from mmserve.http.heads import Heads
from mmserve.http.native import Native
from mmserve.http.targets import Targets

PATH = "/predictions/linear"


def targets() -> Targets:
    return Targets(Native(1.0), Native(1.0))


def keep(heads: Heads, further: int) -> bool:
    """Whether a head with so many headers beside the usual ones is kept."""
    said = {hdrs.HOST: "test", hdrs.CONTENT_LENGTH: "7", **{f"X-{number}": "" for number in range(further)}}
    headers = CIMultiDictProxy(CIMultiDict(said))
    message: RawRequestMessage = make_mocked_request("POST", PATH, headers)._message
    read = heads.read(message)
    assert read is not None
    heads.keep(b"the bytes of it" + END, read)
    return bool(heads.known)


def test_a_path_is_remembered_with_as_much_as_a_client_has_to_say() -> None:
    known = targets()
    for query in ("", "?method=predict_proba", "?model_name=a&method=b&c=d"):
        target = known.of(make_mocked_request("POST", PATH + query))
        assert known.known[PATH + query] is target


def test_a_query_of_many_words_is_understood_and_not_remembered() -> None:
    known = targets()
    target = known.of(make_mocked_request("POST", PATH + "?" + "&a" * 100))
    assert target is not None
    assert len(target.query) == 100
    assert not known.known


def test_a_head_of_many_headers_is_not_kept() -> None:
    known = targets()
    known.of(make_mocked_request("POST", PATH))
    assert keep(Heads(known), 20)
    assert not keep(Heads(known), 100)
