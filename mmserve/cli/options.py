"""The settings as options of commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from mmserve.config import Loaded, load, table

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(*names: str) -> Callable[[Command], Command]:
    """`--config` and an option for each setting, or for those named."""

    def decorate(command: Command) -> Command:
        for row in reversed(table()):
            if not names or row.name in names:
                shown = ",".join(row.default) if isinstance(row.default, tuple) else row.default
                default = "" if shown is None else f"  [default: {shown}]"
                command = click.option(row.flag, row.name, metavar="VALUE", help=row.description + default)(command)
        return click.option("--config", "config_file", metavar="FILE", help="TOML file with settings.")(command)

    return decorate


def load_settings(given: Mapping[str, Any], config_file: str | None) -> Loaded:
    """The settings, with what was given on the command line."""
    return load({name: value for name, value in given.items() if value is not None}, file=config_file)
