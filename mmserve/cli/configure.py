"""`mmserve config`: every setting, its value, where that was said, and what it means."""

from __future__ import annotations

from typing import Any

import click

from mmserve.cli.options import load_settings, settings_options
from mmserve.cli.tables import show
from mmserve.config import table


@click.command()
@settings_options()
def config(config_file: str | None, **given: Any) -> None:
    """Lists every setting: its value here, where that comes from, and its meaning."""
    loaded = load_settings(given, config_file)
    rows = []
    for row in table():
        value = getattr(loaded.settings, row.name)
        shown = ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
        source = loaded.sources.get(row.name, "default")
        rows.append((row.name, shown, source, row.flag, row.variable, row.description))
    show(rows, ("setting", "value", "from", "flag", "environment", "meaning"))
    for remark in loaded.remarks:
        click.echo(remark, err=True)
