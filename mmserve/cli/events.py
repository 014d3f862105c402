"""`mmserve events`: what the running server did and why, so far and as it happens."""

from __future__ import annotations

import datetime
import time
import urllib.error
from collections.abc import Iterator, Mapping
from typing import Any

import click
import msgspec

from mmserve import runfile
from mmserve.cli.client import ManagementClient
from mmserve.cli.options import load_settings, settings_options

# Seconds that the server holds an answer back until there is an event.
_WAIT = 30
# Events in one answer: what the server gives at most.
_MOST = 1000
# Seconds before the next question to a server that did not wait, because it is stopping.
_PAUSE = 0.2
# What every event has; the rest is its details.
_USUAL = ("id", "time", "kind", "model", "reason")


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until Ctrl-C.")
@click.option("--model", help="Only those of this model.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, _MOST), default=20, show_default=True, help="How many of the past."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@settings_options("management_address", "runtime_dir")
def events(
    *, config_file: str | None, follow: bool, model: str | None, lines: int, as_json: bool, **given: Any
) -> None:
    """Shows what the running server did and why, one line for each event: time, kind, model, reason, details."""
    settings = load_settings(given, config_file).settings
    running = runfile.read(runfile.path(settings.runtime_dir, settings.management_address))
    client = ManagementClient(running.management if running is not None else settings.management_address)
    try:
        answer = client.get("/events", {"model": model, "limit": max(1, lines)})
        _show(answer["events"] if lines else [], as_json=as_json)
        if follow:
            for found in _following(client, model, answer["last"]):
                _show(found, as_json=as_json)
    except KeyboardInterrupt:
        # How following is meant to be ended.
        return


def _following(client: ManagementClient, model: str | None, last: int) -> Iterator[list[dict[str, Any]]]:
    """The events after `last` as they come, until the server has stopped; ends in one line when it has just gone."""
    stopping = False
    while True:
        asked = time.monotonic()
        parameters = {"after": last, "model": model, "limit": _MOST, "timeout": _WAIT}
        try:
            answer = client.get("/events", parameters)
        except click.ClickException as error:
            if isinstance(error.__cause__, urllib.error.HTTPError):
                raise
            if stopping:
                return
            raise click.ClickException(f"the server has gone: {error.message}") from error
        found = answer["events"]
        stopping = stopping or any(event["kind"] == "server_stopping" for event in found)
        yield found
        last = found[-1]["id"] if found else answer["last"]
        if not found and time.monotonic() - asked < _PAUSE:
            time.sleep(_PAUSE)


def _show(found: list[dict[str, Any]], *, as_json: bool) -> None:
    for event in found:
        click.echo(msgspec.json.encode(event).decode() if as_json else _line(event))


def _line(event: Mapping[str, Any]) -> str:
    when = datetime.datetime.fromisoformat(event["time"]).astimezone().replace(tzinfo=None)
    details = (f"{name}={_text(value)}" for name, value in event.items() if name not in _USUAL)
    said = (when.isoformat(" ", "milliseconds"), event["kind"], event["model"] or "-", _text(event["reason"]), *details)
    return "  ".join(part for part in said if part)


def _text(value: Any) -> str:
    """In one line, and nothing that a terminal would obey: a model's own words may be part of it."""
    return value if isinstance(value, str) and value.isprintable() else msgspec.json.encode(value).decode()
