"""A requirements.txt: what it is understood as, when it is satisfied, and what is refused of it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from mmserve.models import requirements
from mmserve.models.requirements import Requirements, RequirementsError
from tests.wheels import write_wheel

NUMPY = metadata.version("numpy")


def write(directory: Path, text: str | bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "requirements.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    return directory


def read(directory: Path, text: str | bytes) -> Requirements | None:
    return requirements.read(write(directory, text))


def needed(directory: Path, text: str) -> Requirements:
    found = read(directory, text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n\n   \n",
        "numpy",
        f"NumPy=={NUMPY}  # this very one",
        "\ufeffscikit_learn>=1.4,\\\n    <99\r\njoblib ; python_version >= '3.8'\n",
        "tabulate-of-another-time; python_version < '3'",
        "aiohttp[speedups-that-nobody-knows]; sys_platform == 'win32'",
        "--extra-index-url https://example.org/simple\nnumpy",
    ],
)
def test_what_the_servers_environment_has_needs_no_other(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) is None


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("numpy\nnobody-has-this", "nobody-has-this"),
        ("numpy==1.22.3", "numpy==1.22.3"),
        (f"numpy=={NUMPY} --hash=sha256:0123", f"numpy=={NUMPY}"),
        ("uvicorn[no-such-extra] @ https://example.org/u-1.0-py3-none-any.whl", "uvicorn"),
        ("numpy[no-such-extra]", "numpy[no-such-extra]"),
    ],
)
def test_what_it_has_not_is_named(tmp_path: Path, text: str, missing: str) -> None:
    assert needed(tmp_path, text).missing[0].startswith(missing)


def test_no_file_needs_nothing(tmp_path: Path) -> None:
    assert requirements.read(tmp_path) is None
    (tmp_path / "requirements.txt").mkdir()
    assert requirements.read(tmp_path) is None


def test_a_file_beside_the_code_counts_where_there_is_none_at_the_top(tmp_path: Path) -> None:
    write(tmp_path / "code", "nobody-has-this")
    found = requirements.read(tmp_path)
    assert found is not None
    assert found.lines == ("nobody-has-this",)
    assert read(tmp_path, "numpy") is None


def test_equal_content_has_an_equal_key_however_it_is_written(tmp_path: Path) -> None:
    first = needed(tmp_path / "1", "Tiny_Thing>=1.0,<2\nnumpy\n-i https://example.org/simple")
    second = needed(
        tmp_path / "2", "# mine\n--index-url=https://example.org/simple\nnumpy\n\ntiny-thing <2, >= 1.0 # yes\n"
    )
    assert (first.key, first.lines) == (second.key, second.lines)
    assert first.key != needed(tmp_path / "3", "tiny-thing>=1.0,<3\nnumpy").key
    assert first.key != needed(tmp_path / "4", "Tiny_Thing>=1.0,<2\nnumpy").key


def test_wheels_in_the_archive_are_part_of_the_key(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("1", "2", "3"))
    for directory, version in ((first, "1.0"), (second, "1.0"), (third, "1.1")):
        write_wheel(directory / "requirements", "tiny", version)
    keys = [needed(directory, "tiny").key for directory in (first, second, third)]
    assert keys[0] == keys[1] != keys[2]
    found = needed(first, "tiny")
    assert found.wheels == first / "requirements"
    write_wheel(first / "requirements", "tiny", "1.0", requires="numpy")
    assert needed(first, "tiny").key != keys[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-r more.txt", "belong into requirements.txt"),
        ("--constraint=more.txt", "belong into requirements.txt"),
        ("-e .", "is not followed"),
        ("--pre\nnumpy", "is not followed"),
        ("--find-links ./wheels", "no http or https URL"),
        ("--index-url file:///etc", "no http or https URL"),
        ("./tiny-1.0-py3-none-any.whl", "a wheel goes into requirements/"),
        ("git+https://example.org/tiny.git", "a wheel goes into requirements/"),
        ("tiny @ file:///tiny-1.0-py3-none-any.whl", "not the URL of a wheel"),
        ("tiny @ https://example.org/tiny-1.0.tar.gz", "nothing is built from source"),
        ("--index-url https://example.org/${UV_INDEX_PASSWORD}/", "names a variable"),
        ("tiny @ https://example.org/$\\\n{HOME}/${HOME}/tiny-1.0-py3-none-any.whl", "names a variable"),
        ("numpy = 1", "is no requirement by name"),
        (b"numpy # \xff", "not UTF-8"),
        ("#" * (1 << 20) + "#", "more than"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(RequirementsError, match=said):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "environments"),
    [
        ("-e git+https://user:secret@example.org/tiny.git", requirements.BUILD),
        ("tiny @ https://secret@example.org/tiny-1.0-py3-none-any.whl", requirements.REFUSE),
    ],
)
def test_what_is_refused_is_said_without_credentials(tmp_path: Path, text: str, environments: str) -> None:
    with pytest.raises(RequirementsError, match=r"https://\*\*\*@example.org") as refused:
        requirements.needed(write(tmp_path, text), environments)
    assert "secret" not in str(refused.value)


def test_a_server_that_makes_no_environments_says_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "numpy\nnobody-has-this>=1")
    with pytest.raises(RequirementsError, match=r"nobody-has-this>=1.*environments"):
        requirements.needed(tmp_path, requirements.REFUSE)
    write(tmp_path, "numpy")
    assert requirements.needed(tmp_path, requirements.REFUSE) is None


@pytest.mark.parametrize("text", ["numpy==1.22.3", "-r more.txt"])
def test_a_server_that_ignores_requirements_warns_once(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert requirements.needed(write(tmp_path, text), requirements.IGNORE) is None
    assert caplog.text.count("is ignored") == 1
