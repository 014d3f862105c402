"""Makes the environment of a requirements.txt, with uv, in a directory that nobody uses yet.

    uv venv ──► what the server's own environment has of NumPy, scikit-learn and joblib, linked ──► uv pip install

The result is what `pip install -r requirements.txt` on top of the server's environment would be, as the containers do
it whose archives these are: what is there stays as it is unless something asks for another version. The rest of the
server's environment is not there. Only wheels are installed: to build one is to run code of the archive's author in
other places than a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from mmserve.errors import ModelFailed
from mmserve.models.requirements import COMPANIONS, Requirements

logger = logging.getLogger("mmserve.supervision")

ERROR_TYPE = "EnvironmentFailedException"
# Below the front and its workers.
_NICE = 10
# Seconds. uv itself gives up on an index that does not answer; this is for whatever else may hang.
_LONGEST = 1800.0
# Of what uv says when it fails; the reason comes last.
_LINES, _CHARACTERS = 12, 2000
# What uv gets of the server's environment: where the packages come from, and how to get there.
_PASSED_ON = frozenset({"HOME", "LANG", "PATH", "PYTHONPATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR"})
_PASSED_ON_PREFIXES = ("LC_", "MMSERVE_", "UV_", "XDG_")
_PROXIES = frozenset({"all_proxy", "http_proxy", "https_proxy", "no_proxy"})
# pip's settings, which uv does not read, by the names under which it knows them.
_OF_PIP = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}
# Lists in pip's settings are separated by blanks, as those of uv's indexes are; not so these.
_SEPARATED_BY_COMMAS = frozenset({"UV_FIND_LINKS"})
# What uv says of a version that it would have to compile.
_NO_WHEEL = ("no usable wheels", "building from source is disabled", "has no wheels")


class Installer:
    """`downloads` is where uv keeps what it has downloaded; `offline` uses no network."""

    def __init__(self, downloads: Path, *, offline: bool) -> None:
        self._downloads = downloads
        self._offline = offline

    async def install(self, requirements: Requirements, directory: Path) -> None:
        """Makes a new environment in `directory`. Raises ModelFailed with what uv says, and OSError."""
        await self._run(["venv", "--relocatable", "--no-project", f"--python={_interpreter()}", str(directory)])
        packages = site_packages(directory)
        linking = asyncio.create_task(asyncio.to_thread(_link_companions, packages))
        try:
            await asyncio.shield(linking)
        finally:
            # Whoever gives up removes the directory, in which a thread that goes on would make others.
            await linking
        listed = directory / "requirements.txt"
        await asyncio.to_thread(listed.write_text, "\n".join([*requirements.lines, *COMPANIONS, ""]))
        options = ["--no-build", f"--python={python(directory)}", f"--requirements={listed}"]
        if requirements.wheels is not None:
            options.append(f"--find-links={requirements.wheels}")
        if self._offline:
            options += ["--no-index", "--offline"]
        await self._run(["pip", "install", *options])

    async def forget_downloads(self) -> None:
        """What was downloaded for environments that are gone is not kept for ever."""
        if "UV_CACHE_DIR" not in os.environ:
            await self._run(["cache", "clean"])

    async def _run(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-P", "-m", "mmserve_worker.subordinate", str(os.getpid()), str(_NICE)]
        command += [find_uv_bin(), *arguments, "--quiet", "--color=never"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(os.environ, self._downloads),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_LONGEST):
                _, said = await process.communicate()
        except TimeoutError:
            raise ModelFailed(ERROR_TYPE, f"uv has not finished within {_LONGEST:g} seconds.") from None
        finally:
            # With the interpreters that uv asks for their versions.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.returncode:
            raise ModelFailed(ERROR_TYPE, _explained(said.decode(errors="replace"), process.returncode))


def python(environment: Path) -> Path:
    return environment / "bin" / "python"


def site_packages(environment: Path) -> Path:
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _interpreter() -> str:
    """The one that the server's own environment was made with."""
    return os.path.realpath(sys.executable)


def _explained(said: str, code: int) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = " ".join(lines[-_LINES:])[-_CHARACTERS:] or f"it ended with {code}"
    message = f"The environment of requirements.txt cannot be made. uv says: {last}"
    if any(words in said for words in _NO_WHEEL):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        message += (
            f" There is no wheel of that version for Python {version} on {platform.machine()}, and nothing is built "
            "from source: loosen the pins in requirements.txt, put a wheel into requirements/ beside it, or start the "
            "server with environments=ignore, which serves such models with the packages that the server has."
        )
    return message


def _environment(ours: Mapping[str, str], downloads: Path) -> dict[str, str]:
    passed = {
        name: value
        for name, value in ours.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES) or name.lower() in _PROXIES
    }
    for name, of_uv in _OF_PIP.items():
        if name in ours and of_uv not in passed:
            passed[of_uv] = ",".join(ours[name].split()) if of_uv in _SEPARATED_BY_COMMAS else ours[name]
    return {"UV_CACHE_DIR": str(downloads), **passed}


def _link_companions(packages: Path) -> None:
    """Links what the server's environment has of the companions and of what they need; copies across file systems."""
    for distribution in _companions():
        for file in distribution.files or ():
            # Scripts lie outside, and nobody calls them here.
            if ".." in file.parts or file.is_absolute():
                continue
            source = Path(str(distribution.locate_file(file)))
            for one in (source, Path(cache_from_source(str(source)))) if source.suffix == ".py" else (source,):
                _link(one, packages / one.relative_to(source.parents[len(file.parts) - 1]))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # What was not compiled is not there, and what was may be listed, too.
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        try:
            os.link(source, target)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError:
            # On another file system, or of another owner.
            shutil.copy2(source, target)


def _companions() -> Iterator[metadata.Distribution]:
    """Those that the server has, and what they need."""
    names, seen = list(COMPANIONS), set[str]()
    while names:
        name = canonicalize_name(names.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        yield distribution
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                names.append(requirement.name)
