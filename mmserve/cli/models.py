"""`mmserve models`: the management API from the command line."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click
import msgspec

from mmserve import runfile
from mmserve.cli.client import ManagementClient
from mmserve.cli.options import load_settings, settings_options
from mmserve.cli.tables import show

# Models that the server lists at once.
_PAGE = 100
# The settings that say which server is meant.
_WHICH = ("management_address", "runtime_dir")


@click.group()
def models() -> None:
    """Lists, describes, registers, scales and unregisters models of the running server."""


def _asks(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the server that it is to ask, and the options that say which one that is."""

    @settings_options(*_WHICH)
    @functools.wraps(command)
    def asking(*, config_file: str | None, **said: Any) -> None:
        settings = load_settings({name: said.pop(name) for name in _WHICH}, config_file).settings
        running = runfile.read(runfile.path(settings.runtime_dir, settings.management_address))
        address = running.management if running is not None else settings.management_address
        command(ManagementClient(address), **said)

    return asking


def _path(name: str) -> str:
    return f"/models/{quote(name, safe='')}"


@models.command("list")
@click.option("--limit", type=click.IntRange(1), help="Show no more than this many.")
@_asks
def list_(client: ManagementClient, limit: int | None) -> None:
    """Lists the models that can be asked."""
    rows: list[tuple[str, str, str]] = []
    token: str | None = "0"
    while token is not None and (limit is None or len(rows) < limit):
        wanted = _PAGE if limit is None else min(_PAGE, limit - len(rows))
        page = client.get("/models", {"next_page_token": token, "limit": wanted})
        rows += [(model["modelName"], model["status"], model["modelUrl"]) for model in page["models"]]
        token = page.get("nextPageToken")
    show(rows, ("model", "status", "from"))
    if token is not None:
        click.echo("there are more", err=True)


@models.command()
@click.argument("name")
@_asks
def describe(client: ManagementClient, name: str) -> None:
    """Shows a model's state, settings, workers and queue."""
    click.echo(msgspec.json.format(msgspec.json.encode(client.get(_path(name)))).decode())


def _worker_options(command: Any) -> Any:
    for flag, meaning in (
        ("--job-queue-size", "Requests that may wait."),
        ("--max-batch-delay", "Milliseconds to wait for a batch to fill."),
        ("--batch-size", "Requests that one call may answer together."),
        ("--max-worker", "Most workers."),
        ("--min-worker", "Workers that always run."),
    ):
        command = click.option(flag, type=click.IntRange(0), help=meaning)(command)
    return command


@models.command()
@click.argument("url")
@click.option("--name", help="Its name, if not the file's.")
@_worker_options
@_asks
def register(client: ManagementClient, /, url: str, name: str | None, **asked: int | None) -> None:
    """Registers the archive or directory URL: a path, or a name in the model store."""
    if "/" in url and "://" not in url:
        # As seen from here, not from the server.
        url = os.path.abspath(url)
    click.echo(client.call("POST", "/models", {"url": url, "model_name": name, **asked})["status"])


@models.command()
@click.argument("name")
@_worker_options
@_asks
def scale(client: ManagementClient, /, name: str, **asked: int | None) -> None:
    """Changes how many workers a model has."""
    click.echo(client.call("PUT", _path(name), asked)["status"])


@models.command()
@click.argument("name")
@_asks
def unregister(client: ManagementClient, name: str) -> None:
    """Takes a model away when it has finished what it accepted."""
    click.echo(client.call("DELETE", _path(name))["status"])
