"""`mmserve package`: makes the archive of a model, or says what is wrong with one."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from mmserve.models.archive import NAME_RULE, ArchiveError, name_of, valid_name
from mmserve.models.lint import Report, check
from mmserve.models.pack import pack


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The archive: .tar.gz, .tgz, .tar, .zip or .mar.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Goes into its serving.properties.")
@click.option("--force", is_flag=True, help="Replaces an output that is there.")
@click.option("--check", "checked", type=click.Path(path_type=Path), metavar="FILE", help="Only checks an archive.")
def package(
    files: tuple[Path, ...], output: Path | None, settings: tuple[str, ...], force: bool, checked: Path | None
) -> None:
    """Packs FILES, and what is in directories among them, into an archive that can be served."""
    if checked is not None:
        if files or output is not None or settings or force:
            raise click.UsageError("--check goes with nothing else.")
        _refuse_missing(checked)
        _tell(_run_check(checked))
        return
    if not files or output is None:
        raise click.UsageError("Say what to pack and, with -o, where to.")
    _refuse_output(output, force)
    for path in files:
        _refuse_missing(path)
    _build(files, output, _properties(settings))
    click.echo(f"{output} is ready to be served as {name_of(output)}")


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        raise click.ClickException(f"{path} does not exist")


def _refuse_output(output: Path, force: bool) -> None:
    name = name_of(output)
    if name is None:
        raise click.ClickException(f"{output} must end in .tar.gz, .tgz, .tar, .zip or .mar")
    if not valid_name(name):
        raise click.ClickException(f"{name!r} is no name for a model: {NAME_RULE}")
    if output.exists() and not force:
        raise click.ClickException(f"{output} exists (--force replaces it)")


def _properties(settings: Sequence[str]) -> dict[str, str]:
    properties: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise click.ClickException(f"--set {setting}: expected KEY=VALUE")
        properties[key.strip()] = value.strip()
    return properties


def _build(files: Sequence[Path], output: Path, properties: dict[str, str]) -> None:
    """What does not pass its own check never gets the output's name."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mmserve-package-", dir=output.parent) as beside:
            built = Path(beside, output.name)
            # An output that is replaced may lie in a directory that is packed.
            pack(files, built, properties, besides=output)
            _tell(check(built))
            built.replace(output)
    except (ArchiveError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _run_check(archive: Path) -> Report:
    try:
        return check(archive)
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _tell(report: Report) -> None:
    """Remarks to the standard output, errors to the standard error; exits where there are any."""
    for remark in report.remarks:
        click.echo(remark)
    for error in report.errors:
        click.echo(f"Error: {error}", err=True)
    if report.errors:
        raise click.exceptions.Exit(1)
