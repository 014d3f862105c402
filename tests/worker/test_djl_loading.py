"""What a model.py finds when it is loaded, and what keeps one from being served."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmserve_worker.handlers.errors import LoadError
from tests.worker.coded import answer
from tests.worker.djl_models import Load, json_of


def test_the_file_runs_once_in_its_directory_and_finds_its_neighbours(load: Load, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'neighbour'")
    (tmp_path / "runs.txt").write_text("")
    source = """
        import pickle
        from pathlib import Path
        import beside
        runs = Path("runs.txt")
        runs.write_text(runs.read_text() + "x")
        class Model: pass
        def handle(inputs):
            return Output().add([beside.NAME, type(pickle.loads(pickle.dumps(Model()))).__name__])
    """
    assert json_of(answer(load(source))) == ["neighbour", "Model"]
    assert (tmp_path / "runs.txt").read_text() == "x"


def test_options_name_the_file_and_the_function(load: Load) -> None:
    source = "def answer_it(inputs):\n    return Output().add('here')\n"
    handler = load(source, file="entry.py", option_entryPoint="entry.py", option_handler="answer_it")
    assert answer(handler).body == b"here"


def test_an_entry_point_may_be_a_module(load: Load) -> None:
    source = "def handle(inputs):\n    return Output().add('module')\n"
    handler = load(source, file="entry_module.py", option_entryPoint="entry_module")
    assert answer(handler).body == b"module"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("x = 1", {}, r"model.py has no function handle\(inputs\)"),
        ("def handle(inputs): pass", {"option_handler": "other"}, "no function other"),
        ("def handle(inputs): pass", {"option_entryPoint": "missing.py"}, "there is no missing.py"),
        ("def handle(inputs): pass", {"option_entryPoint": "https://example.org/model.py"}, "is a URL"),
        ("def handle(inputs): return Output().error('no weights')", {}, "424.*no weights"),
    ],
)
def test_what_cannot_be_served_does_not_load(load: Load, source: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(LoadError, match=message):
        load(source, **options)


def test_what_model_py_raises_at_load_is_raised(load: Load) -> None:
    with pytest.raises(ZeroDivisionError):
        load("1 / 0")
    assert not [name for name in sys.modules if name.startswith("mmserve_model_")]
    with pytest.raises(RuntimeError, match="at first call"):
        load("def handle(inputs): raise RuntimeError('at first call')")
