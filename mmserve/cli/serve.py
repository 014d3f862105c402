"""`mmserve start`, `stop` and `status`."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.filesize import decimal

from mmserve import runfile
from mmserve.cli.client import ManagementClient
from mmserve.cli.options import load_settings, settings_options
from mmserve.cli.tables import show
from mmserve.config import Loaded, Settings, table
from mmserve.errors import StartError
from mmserve.supervision.spawning import spawn

# How long a started server has until it answers, in seconds.
_START_TIMEOUT = 60


class Outcome(msgspec.Struct):
    """What a server in the background tells the command that started it, once."""

    running: runfile.Running | None = None
    error: str | None = None


@click.command()
@settings_options()
@click.option("--foreground", is_flag=True, help="Stay attached and log to the terminal.")
@click.option("--ready-fd", type=int, hidden=True)
def start(config_file: str | None, foreground: bool, ready_fd: int | None, **given: Any) -> None:
    """Starts the server and returns when it answers."""
    loaded = load_settings(given, config_file)
    if ready_fd is not None:
        _serve_for(loaded, ready_fd)
    elif foreground:
        serve_here(loaded, announce)
    else:
        announce(_start_in_background(loaded, config_file))


@click.command()
@settings_options("management_address", "runtime_dir", "drain_timeout")
@click.option("--force", is_flag=True, help="Kill the server if it has not ended by then.")
def stop(config_file: str | None, force: bool, **given: Any) -> None:
    """Stops the server when it has finished what it accepted."""
    settings = load_settings(given, config_file).settings
    running = _running(settings)
    try:
        pidfd = os.pidfd_open(running.pid)
    except ProcessLookupError:
        # It ended in this moment.
        click.echo("stopped")
        return
    try:
        if runfile.read(_run_path(settings)) != running:
            # It ended in this moment, and its pid may be another's.
            click.echo("stopped")
            return
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        # What is accepted has drain_timeout; ending the processes takes some more.
        if not _wait_for_end(pidfd, settings.drain_timeout + 15):
            if not force:
                raise click.ClickException(f"process {running.pid} has not ended; mmserve stop --force kills it")
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _wait_for_end(pidfd, 10)
    finally:
        os.close(pidfd)
    click.echo("stopped")


@click.command()
@settings_options("management_address", "runtime_dir")
@click.option("--json", "as_json", is_flag=True, help="Print the server's own JSON.")
def status(config_file: str | None, as_json: bool, **given: Any) -> None:
    """Says how the running server is doing."""
    running = _running(load_settings(given, config_file).settings)
    answer = ManagementClient(running.management).get("/status")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())
        return
    states = ", ".join(f"{count} {state}" for state, count in sorted(answer["workersByState"].items()))
    show(
        [
            ("process", str(answer["pid"])),
            ("up", f"{answer['uptime']:.0f} s"),
            ("inference", answer["inferenceAddress"]),
            ("management", answer["managementAddress"]),
            ("model store", answer["modelStore"] or "none"),
            ("models", str(answer["models"])),
            ("workers", f"{answer['workers']}" + (f" ({states})" if states else "")),
            ("started, ended", f"{answer['workersStarted']}, {answer['workersEnded']}"),
            ("failed models", str(answer["modelsFailed"])),
            ("memory", f"{decimal(answer['memoryUsed'])} of {decimal(answer['memoryBudget'])}"),
            ("of the front", decimal(answer["memory"])),
        ]
    )


def _run_path(settings: Settings) -> Path:
    return runfile.path(settings.runtime_dir, settings.management_address)


def _running(settings: Settings) -> runfile.Running:
    path = _run_path(settings)
    running = runfile.read(path)
    if running is None:
        click.echo(
            f"mmserve is not running on {settings.management_address}, or with another --runtime-dir than "
            f"{path.parent}",
            err=True,
        )
        sys.exit(3)
    return running


def _wait_for_end(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])


def announce(running: runfile.Running) -> None:
    management = f", management at {running.management}" if running.management != running.inference else ""
    where = f" of {running.store}" if running.store is not None else ""
    count = "the" if running.models is None else running.models
    number = "1 model" if count == 1 else f"{count} models"
    click.echo(f"mmserve serves {number}{where} at {running.inference}{management} (process {running.pid})")


def serve_here(loaded: Loaded, ready: Any) -> None:
    """Runs the server in this process."""
    settings = loaded.settings
    held = runfile.RunFile(_run_path(settings))
    try:
        # The slowest comes first: it imports the libraries of models while the server imports its own.
        template = spawn(settings.preload, log_level=settings.log_level, environment=settings.worker_environment)
    except OSError as error:
        held.close()
        raise StartError(f"the template cannot be started: {error.strerror}") from error

    # Here and not above: no other command has to wait for the event loop and the HTTP server to be imported.
    from mmserve.server import Server, run

    def answers(server: Server) -> None:
        running = runfile.Running(
            pid=os.getpid(),
            inference=server.inference.url,
            management=server.management.url,
            store=settings.model_store,
            models=server.store.count() if server.store is not None else len(server.registry.models),
        )
        held.write(running)
        _notify_systemd()
        ready(running)

    try:
        run(settings, answers, template, loaded.remarks)
    finally:
        template.close()
        held.close()


def _serve_for(loaded: Loaded, ready_fd: int) -> None:
    """Runs the server, and tells the command that has started it and waits for it."""
    # No process that the server starts may hold it: the command waits for its end.
    os.set_inheritable(ready_fd, False)

    told: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        told.append(outcome)
        os.write(ready_fd, msgspec.json.encode(outcome))
        os.close(ready_fd)

    def ready(running: runfile.Running) -> None:
        # Into the log, which has the ends of servers as well.
        announce(running)
        tell(Outcome(running=running))

    try:
        serve_here(loaded, ready)
    except StartError as error:
        tell(Outcome(error=str(error)))
        sys.exit(1)
    except OSError as error:
        if not told:
            tell(Outcome(error=f"the server cannot start: {error}"))
        raise


def _start_in_background(loaded: Loaded, config_file: str | None) -> runfile.Running:
    settings = loaded.settings
    log = _run_path(settings).with_suffix(".log")
    arguments = [f"--config={config_file}"] if config_file else []
    for row in table():
        if loaded.sources.get(row.name) == row.flag:
            value = getattr(settings, row.name)
            arguments.append(f"{row.flag}={','.join(value) if isinstance(value, tuple) else value}")
    reading, writing = os.pipe()
    try:
        runfile.make_directory(log.parent)
        with log.open("ab") as output:
            process = subprocess.Popen(
                # Nothing is imported from the directory that the command happens to run in.
                [sys.executable, "-P", "-m", "mmserve", "start", f"--ready-fd={writing}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writing],
                start_new_session=True,
            )
    except OSError as error:
        raise click.ClickException(f"{log}: {error.strerror}") from error
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answered = select.select([pipe], [], [], _START_TIMEOUT)[0]
        said = pipe.read() if answered else b""
    if not answered:
        process.kill()
        raise click.ClickException(f"the server did not answer within {_START_TIMEOUT} seconds; see {log}")
    outcome = msgspec.json.decode(said, type=Outcome) if said else Outcome(error=f"the server has ended; see {log}")
    if outcome.running is None:
        process.wait()
        raise click.ClickException(outcome.error or "")
    # It lives on; this object need not mind.
    process.returncode = 0
    return outcome.running


def _notify_systemd() -> None:
    """Tells systemd that the service is up (sd_notify), if it has started it."""
    import socket

    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            notify.send(b"READY=1")
