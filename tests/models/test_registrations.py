"""What was registered is loaded again as it was said, beside damaged files and others' files."""

from __future__ import annotations

import logging
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmserve.models.registrations import MAX_BYTES, Record, Registrations
from mmserve.models.settings import ModelSettings
from tests.models.test_settings import consistent_settings

OLD = Record("model", "/models/old.tar.gz", {"min_workers": 1})
GOOD = Record("good", "/models/good.tar.gz")


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    assert Registrations(tmp_path / "a" / "state").load() == []
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700


def test_what_was_saved_is_loaded_by_name_when_it_was_saved_last(registrations: Registrations, directory: Path) -> None:
    for name in ("b", "a-b", "a", "B.c"):
        registrations.save(Record(name, withdrawn=True))
    registrations.save(Record("b", scaled_to={"max_memory_mb": 64.5}))
    withdrawn = [Record(name, withdrawn=True) for name in ("B.c", "a", "a-b")]
    assert Registrations(directory).load() == [*withdrawn, Record("b", scaled_to={"max_memory_mb": 64.5})]


@settings(max_examples=30, deadline=None)
@given(consistent_settings(), consistent_settings(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_settings_come_back_as_they_were_said(
    registered_with: ModelSettings, scaled_to: ModelSettings, source: str
) -> None:
    record = Record("model", source.replace("\0", "0"), registered_with.values(), scaled_to.values())
    with TemporaryDirectory() as directory:
        registrations = Registrations(Path(directory))
        registrations.save(record)
        (loaded,) = registrations.load()
    assert loaded == record
    assert ModelSettings.from_values(loaded.registered_with) == registered_with
    assert ModelSettings.from_values(loaded.scaled_to) == scaled_to


def test_only_what_has_a_handler_has_one_in_its_file(registrations: Registrations, directory: Path) -> None:
    for record in (GOOD, Record("coded", "/models/coded", handler="service:handle")):
        registrations.save(record)
        assert record in Registrations(directory).load()
    assert b"handler" not in (directory / "good.json").read_bytes()


def test_the_longest_name_can_be_saved_and_set_aside(registrations: Registrations, directory: Path) -> None:
    name = "x" * 200
    registrations.save(Record(name, withdrawn=True))
    assert registrations.load() == [Record(name, withdrawn=True)]
    (directory / f"{name}.json").write_text("")
    assert (registrations.load(), os.listdir(directory)) == ([], [f"{name}.json.damaged-1"])


@pytest.mark.parametrize("name", ["eu/de/shop-1", "/".join("a" * 512)])
def test_a_name_with_slashes_has_one_file(registrations: Registrations, directory: Path, name: str) -> None:
    registrations.save(Record(name, withdrawn=True))
    assert (registrations.load(), len(os.listdir(directory))) == ([Record(name, withdrawn=True)], 1)
    registrations.remove(name)
    assert registrations.load() == []


def test_a_name_that_looks_like_one_of_our_files_is_a_model(registrations: Registrations) -> None:
    names = ["a", "a.json", "a.json.damaged-1", "a.json.tmp", "a.tmp"]
    for name in names:
        registrations.save(Record(name, withdrawn=True))
    assert [record.name for record in registrations.load()] == names


def test_what_was_removed_is_gone(registrations: Registrations, directory: Path) -> None:
    registrations.save(OLD)
    registrations.remove("model")
    registrations.remove("model")
    assert (registrations.load(), os.listdir(directory)) == ([], [])


def text(**changed: object) -> bytes:
    """The file of a model called "bad", but for what is changed."""
    good: dict[str, object] = {"version": 1, "name": "bad", "source": "/models/bad.tar.gz"}
    return msgspec.json.encode({key: value for key, value in (good | changed).items() if value is not ...})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (text()[:-10], "truncated"),
        (b"\xff\xfe" + random.Random(3).randbytes(300), "malformed"),
        (text().replace(b"bad.tar", b"\xff\xfe.tar"), "decode"),
        (b'{"x":' + b"[" * 50_000, "recursion"),
        (text(version=...), "missing required field `version`"),
        (text(version=2, replicas=3), "it is of version 2, this server reads 1"),
        (text(name="good"), "it is of a model of another name: 'good'"),
        (text(name="../bad"), "'../bad' is not a model name"),
        (text(replicas=3), "unknown field `replicas`"),
        (text(source="/models\0"), "is not a source"),
        (text(source=None, registered_with={"min_workers": 1}), "it is registered without a source"),
        (text(source=None, handler="service:handle"), "it is registered without a source"),
        (text(handler=3), "got `int`"),
        (text(source=None, withdrawn=True, scaled_to={"min_workers": 1}), "it is withdrawn, and is to be served"),
        (text(registered_with={"min_workers": -1}), "min_workers is '-1', expected a whole number from 0 to 1000"),
        (text(registered_with={"min_workers": "1"}), "got `str`"),
        (text(scaled_to={"min_workers": 5, "max_workers": 4}), "expected a whole number from 0 to 4"),
        (text(scaled_to={"replicas": 1}), "replicas is '1', expected nothing, since there is no such setting"),
        (text(scaled_to={"weight": 0.5}).replace(b"0.5", b"1e999"), "out of range"),
        (text(source="x" * MAX_BYTES), f"it is longer than {MAX_BYTES} bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_set_aside_and_named_and_the_others_are_loaded(
    registrations: Registrations, directory: Path, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    registrations.save(GOOD)
    (directory / "bad.json").write_bytes(content)
    assert registrations.load() == [GOOD]
    ((_, level, message),) = caplog.record_tuples
    assert level == logging.ERROR
    assert reason in message
    assert message.endswith("it was set aside as 'bad.json.damaged-1'")
    assert (directory / "bad.json.damaged-1").read_bytes() == content
    assert registrations.load() == [GOOD]
    assert len(caplog.records) == 1


def test_what_was_set_aside_is_never_overwritten(registrations: Registrations, directory: Path) -> None:
    for content in ("first", "second", "third"):
        (directory / "bad.json").write_text(content)
        assert registrations.load() == []
    registrations.save(Record("bad", withdrawn=True))
    assert registrations.load() == [Record("bad", withdrawn=True)]
    aside = {path.name: path.read_text() for path in directory.glob("*.damaged-*")}
    assert aside == {f"bad.json.damaged-{number}": each for number, each in enumerate(("first", "second", "third"), 1)}


def test_what_is_no_file_is_set_aside_and_not_waited_for(registrations: Registrations, directory: Path) -> None:
    registrations.save(GOOD)
    os.mkfifo(directory / "pipe.json")
    (directory / "directory.json").mkdir()
    for name in ("link.json", "link.json.damaged-1"):
        (directory / name).symlink_to("nowhere")
    assert registrations.load() == [GOOD]
    aside = {f"{name}.json.damaged-1" for name in ("directory", "link", "pipe")}
    assert set(os.listdir(directory)) == {"good.json", "link.json.damaged-2", *aside}


def test_a_file_that_cannot_be_read_now_stays_for_another_time(
    registrations: Registrations, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registrations.save(GOOD)
    registrations.save(OLD)
    (directory / "good.json").unlink()
    (directory / "good.json").symlink_to("good.json")
    assert registrations.load() == [OLD]
    assert "'good.json': [Errno 40] Too many levels of symbolic links" in caplog.text
    assert sorted(os.listdir(directory)) == ["good.json", "model.json"]


def test_what_is_not_ours_in_the_directory_is_left_alone(
    registrations: Registrations, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"README", ".gitignore", ".hidden.json", "a.json~"}
    for name in names:
        (directory / name).touch()
    assert (registrations.load(), set(os.listdir(directory)), caplog.records) == ([], names, [])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("../model", withdrawn=True), "not a model name"),
        (Record("model", registered_with={"min_workers": 1}), "without a source"),
        (Record("model", "/model", {"min_workers": -1}), "from 0 to 1000"),
        (Record("model", "/model", version=2), "version 2"),
        (Record("model", "/model/\udcff"), "surrogates not allowed"),
        (Record("model", "/" * MAX_BYTES), "longer than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_is_saved_that_would_not_be_loaded(
    registrations: Registrations, directory: Path, record: Record, reason: str
) -> None:
    registrations.save(OLD)
    with pytest.raises(ValueError, match=reason):
        registrations.save(record)
    assert (os.listdir(directory), registrations.load()) == (["model.json"], [OLD])


def test_different_models_are_saved_and_removed_at_the_same_time(registrations: Registrations) -> None:
    def work(name: str) -> None:
        for turn in range(30):
            registrations.save(Record(name, f"/models/{turn}"))
            if turn % 3 == 0:
                registrations.remove(name)

    names = [f"model-{number}" for number in range(4)]
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(work, names))
    assert registrations.load() == [Record(name, "/models/29") for name in names]
