"""What the documentation says of settings and commands is what they are."""

from __future__ import annotations

import re
from pathlib import Path

import click

from mmserve import config, foreign
from mmserve.cli import main
from mmserve.models import keys

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
README = (ROOT / "README.md").read_text()


def test_the_reference_lists_every_setting_as_it_is() -> None:
    assert config.markdown() in REFERENCE


def test_the_reference_lists_every_key_of_a_models_properties() -> None:
    assert keys.markdown() in REFERENCE


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
