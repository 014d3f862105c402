r"""Reads a model's serving.properties: the syntax of Java properties, as the files in use have it.

It is Java's, with two liberties: bytes may be UTF-8 or Latin-1, and blanks at the end of a value are dropped
(`batch_size=8 ` is never meant). What a key means is said in keys.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

FILE_NAME = "serving.properties"

# Larger than any file written by hand, small enough to be read without a thought.
MAX_BYTES = 1 << 20

_BLANK = " \t\f"
_NEWLINE = re.compile(r"\r\n|\r|\n")
# The key ends at the first separator that is not escaped; blanks around a `=` or `:` do not count.
_KEY = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*(?:[=:][ \t\f]*)?")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_TO_ESCAPE = re.compile(r"[^!-~]|[\\=:#!]")


class PropertiesError(ValueError):
    """A serving.properties that cannot be read, and the line at which."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"{FILE_NAME}, line {line}: {problem}")
        self.line = line


def read(directory: Path) -> dict[str, str]:
    """The properties of the model in a directory; none where it has no such file."""
    try:
        with (directory / FILE_NAME).open("rb") as file:
            # One byte more than is allowed is enough to see that there are too many.
            return parse(file.read(MAX_BYTES + 1))
    except FileNotFoundError:
        return {}


def parse(content: bytes) -> dict[str, str]:
    """The properties in the order of the file. Of a key said twice the last holds, as in Java."""
    if len(content) > MAX_BYTES:
        raise PropertiesError(1 + content.count(b"\n", 0, MAX_BYTES), f"more than {MAX_BYTES} bytes")
    if b"\0" in content:
        raise PropertiesError(1 + content.count(b"\n", 0, content.index(b"\0")), "a NUL byte")
    properties: dict[str, str] = {}
    for number, line in _logical_lines(_decoded(content)):
        match = _KEY.match(line)
        assert match is not None  # It matches the empty string, too.
        value = _without_blanks_at_end(line[match.end() :])
        properties[_unescaped(match[1], number)] = _unescaped(value, number)
    return properties


def dump(properties: Mapping[str, str]) -> bytes:
    """A file that reads as these properties, here and in Java."""
    lines = (f"{_escaped(key)}={_escaped(value)}\n" for key, value in properties.items())
    return "".join(lines).encode("ascii")


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, with those joined that a backslash continues, each with its number."""
    lines = enumerate(_NEWLINE.split(text), start=1)
    for number, line in lines:
        parts = [line.lstrip(_BLANK)]
        if parts[0].startswith(("#", "!")):
            continue
        while _ends_in_escape(parts[-1]):
            parts[-1] = parts[-1][:-1]
            parts.append(next(lines, (0, ""))[1].lstrip(_BLANK))
        joined = "".join(parts)
        if joined:
            yield number, joined


def _ends_in_escape(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _without_blanks_at_end(value: str) -> str:
    stripped = value.rstrip(_BLANK)
    # `\ ` is a blank that is meant.
    return value[: len(stripped) + 1] if _ends_in_escape(stripped) else stripped


def _unescaped(text: str, number: int) -> str:
    def meaning(match: re.Match[str]) -> str:
        escape = match[1]
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        if escape == "u":
            raise PropertiesError(number, r"\u without four hexadecimal digits")
        return _ESCAPES.get(escape, escape)

    text = _ESCAPE.sub(meaning, text)
    try:
        # Java writes what lies beyond 16 bits as two escapes, which are one character.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise PropertiesError(number, "half of a surrogate pair") from None


def _escaped(text: str) -> str:
    def escape(match: re.Match[str]) -> str:
        character = match[0]
        if " " <= character <= "~":
            return "\\" + character
        units = character.encode("utf-16-be")
        return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))

    return _TO_ESCAPE.sub(escape, text)
