"""Makes this process one that runs no code of a model's: no pickle, no module of its directory, no native library.

The front has refused what it knows by name (mmserve/models/trust.py). This is for what it did not: an audit hook, which
nothing can take away again, refuses the deed itself, whichever handler or library is about to do it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from mmserve_worker.calls import CallError

_SUFFIXES = (".py", ".pyc", ".pyd", ".so")


def forbid(directory: str) -> None:
    """From now on and for ever. A pickle that names nothing, numbers in lists, is harmless and is not noticed."""
    inside = tuple(os.path.join(path, "") for path in (os.path.realpath(directory), os.path.abspath(directory)))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        # Called for everything that is audited, so the usual is decided by one look at the event.
        if event == "pickle.find_class":
            raise _refused(f"a pickle that names {arguments[0]}.{arguments[1]}")
        if event in ("open", "import", "ctypes.dlopen"):
            file = _file_of(event, arguments)
            if file is not None and file.endswith(_SUFFIXES) and _is_below(file, inside):
                raise _refused(os.path.basename(file))

    sys.addaudithook(refuse)


def _is_below(file: str, directories: tuple[str, ...]) -> bool:
    """By its name or by where links lead: a model may have one that leads out of its directory, or back in."""
    return os.path.abspath(file).startswith(directories) or os.path.realpath(file).startswith(directories)


def _file_of(event: str, arguments: tuple[Any, ...]) -> str | None:
    """Modules are read from files that are opened; native ones are said by their import."""
    named = arguments[1] if event == "import" else arguments[0]
    return os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else None


def _refused(what: str) -> CallError:
    return CallError(424, "UntrustedModel", f"trust is skops-only, and {what} is refused: it may run code")
