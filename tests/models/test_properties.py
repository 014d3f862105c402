"""The syntax of serving.properties, as Java and the files in use have it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmserve.models.properties import PropertiesError, dump, parse, read

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("content", "properties"),
    [
        (b"", {}),
        (b"engine=Python\nbatch_size=8\n", {"engine": "Python", "batch_size": "8"}),
        (b"engine=Python\r\nbatch_size=8\r\n", {"engine": "Python", "batch_size": "8"}),
        (b"engine=Python\rbatch_size=8", {"engine": "Python", "batch_size": "8"}),
        (b"a = 1\nb:2\nc : 3\nd 4\ne\t\f5", {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}),
        (b"  \t a=1\n\n   \n b=2", {"a": "1", "b": "2"}),
        (b"# a=1\n  ! b=2\nc=3 # no comment", {"c": "3 # no comment"}),
        (b"# a comment is not continued \\\na=1", {"a": "1"}),
        (b"a=1,\\\n   2,\\\r\n\t3\nb=4", {"a": "1,2,3", "b": "4"}),
        (b"a=1\\\n# in a continuation\nb=2", {"a": "1# in a continuation", "b": "2"}),
        (b"a=1\\\\\nb=2\\\\\\\n3", {"a": "1\\", "b": "2\\3"}),
        (b"a=1\\", {"a": "1"}),
        (b"\\\n\\\n", {}),
        (b"a==1\nb= = 2\nc:=3", {"a": "=1", "b": "= 2", "c": "=3"}),
        (b"a\\=b=1\na\\ b 2\na\\:=3", {"a=b": "1", "a b": "2", "a:": "3"}),
        (b"only\n=nothing", {"only": "", "": "nothing"}),
        (b"a=\\t|\\n|\\r|\\f|\\q|\\\\", {"a": "\t|\n|\r|\f|q|\\"}),
        (b"a=\\u00e9\\u4E2d", {"a": "\u00e9\u4e2d"}),
        (b"a=\\ud83d\\ude00", {"a": "\U0001f600"}),
        ("a=\u00e9\U0001f600".encode(), {"a": "\u00e9\U0001f600"}),
        ("a=\u00e9".encode("latin-1"), {"a": "\u00e9"}),
        (b"\xef\xbb\xbfengine=Python", {"engine": "Python"}),
        ("a=x\u2028y\x0bz".encode(), {"a": "x\u2028y\x0bz"}),
        (b"batch_size=8 \t\nkept=8\\ \nnext=1", {"batch_size": "8", "kept": "8 ", "next": "1"}),
        (b"a=1\nb=2\na=3", {"a": "3", "b": "2"}),
    ],
)
def test_the_syntax_is_that_of_java(content: bytes, properties: dict[str, str]) -> None:
    assert parse(content) == properties


def test_the_order_of_the_file_is_kept() -> None:
    assert list(parse(b"z=1\na=2\nm=3")) == ["z", "a", "m"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a=1\nb=\0", "line 2: a NUL byte"),
        ("engine=Python".encode("utf-16"), "line 1: a NUL byte"),
        (b"#\n\na=\\u12g4", r"line 3: \\u without four hexadecimal digits"),
        (b"a=\\u12", r"line 1: \\u without four hexadecimal digits"),
        (b"a=1\nb=\\ud83d", "line 2: half of a surrogate pair"),
        (b"a=1\n" * (1 << 18) + b"b=2", "more than 1048576 bytes"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(content: bytes, message: str) -> None:
    with pytest.raises(PropertiesError, match=message):
        parse(content)


@pytest.mark.parametrize("content", [b"a\\\n" * 300_000, b"a=" + b" " * 900_000 + b"b", b"\\" * 900_000])
@pytest.mark.timeout(5)
def test_a_file_made_to_be_slow_is_not(content: bytes) -> None:
    assert len(parse(content)) == 1


@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(PropertiesError):
        parse(content)


@given(st.dictionaries(texts, texts))
def test_what_is_dumped_reads_the_same(properties: dict[str, str]) -> None:
    assert list(parse(dump(properties)).items()) == list(properties.items())


def test_the_file_of_a_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "serving.properties").write_text("batch_size=8")
    assert read(tmp_path) == {"batch_size": "8"}


def test_a_directory_without_the_file_has_no_properties(tmp_path: Path) -> None:
    assert read(tmp_path) == {}


def test_a_file_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "serving.properties").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PropertiesError, match="more than"):
        read(tmp_path)
