"""What the documentation says of settings and commands is what they are."""

from __future__ import annotations

import re
from pathlib import Path

import click

from mmserve import config, foreign
from mmserve.cli import main
from mmserve.models import keys, model_config

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
README = (ROOT / "README.md").read_text()


def table_of_settings() -> str:
    """The table of settings as the documentation has it."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    machine_dependent = {"cache_dir": "`$CACHE_DIRECTORY`, `$XDG_CACHE_HOME/mmserve` or `~/.cache/mmserve`"}
    machine_dependent["runtime_dir"] = "`$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR/mmserve` or `/tmp/mmserve-UID`"
    machine_dependent["state_dir"] = "`$STATE_DIRECTORY`, `$XDG_STATE_HOME/mmserve` or `~/.local/state/mmserve`"
    machine_dependent["max_workers"] = "usable CPUs"
    machine_dependent["memory_budget"] = "90 % of the usable memory"
    machine_dependent["cache_size"] = "80 % of what is free and what it holds"
    machine_dependent["environments_size"] = "10 % of what is free and what they hold"
    for row in config.table():
        default = ", ".join(row.default) if isinstance(row.default, tuple) else row.default
        shown = machine_dependent.get(row.name, "none" if default is None else f"`{default}`")
        lines.append(f"| `{row.name}` | {shown} | {row.description} |")
    return "\n".join(lines)


def test_the_reference_lists_every_setting_as_it_is() -> None:
    assert table_of_settings() in REFERENCE


def test_the_reference_lists_every_key_of_a_models_properties() -> None:
    assert keys.markdown() in REFERENCE
    assert model_config.markdown() in REFERENCE


def test_the_reference_lists_every_variable_of_other_servers() -> None:
    assert foreign.markdown() in REFERENCE


def test_the_readme_names_settings_and_defaults_that_exist() -> None:
    rows = {row.flag: row for row in config.table()}
    shown = re.findall(r"^\| `(--[a-z-]+)` \| `?([^|`]+)`? \|", README, re.MULTILINE)
    assert len(shown) >= 5
    for flag, default in shown:
        value = rows[flag].default
        expected = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        assert default.strip() == expected, flag


def test_the_readme_names_commands_that_exist() -> None:
    for name, *_ in re.findall(r"^    mmserve ([a-z]+)( |$)", README, re.MULTILINE):
        assert isinstance(main.commands[name], click.Command)
