"""The mmserve command, one module for each group of commands.

Each imports what it needs when it runs: `mmserve --help` and `mmserve status` need neither uvloop nor aiohttp.
"""

from __future__ import annotations

from typing import Any

import click

import mmserve
from mmserve.cli.configure import config
from mmserve.cli.container import serve
from mmserve.cli.events import events
from mmserve.cli.models import models
from mmserve.cli.package import package
from mmserve.cli.serve import start, status, stop
from mmserve.errors import StartError


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        """Every command ends in one line for what its user can mend."""
        try:
            return super().invoke(context)
        except StartError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands)
@click.version_option(mmserve.__version__, prog_name="mmserve")
def main() -> None:
    """Serves scikit-learn models by the thousand from one CPU host, each in a process of its own."""


for command in (start, serve, stop, status, models, events, package, config):
    main.add_command(command)
