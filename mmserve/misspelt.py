"""Variables of the environment that look like settings and are none: most of them are misspelt."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator

PREFIX = "MMSERVE_"

# What Kubernetes says of a service that is called mmserve to all containers beside it.
_KUBERNETES = re.compile(r"(SERVICE_(HOST|PORT)|PORT)(_.+)?")


def remarks(variables: Iterable[str], settings: Collection[str]) -> Iterator[str]:
    """A sentence for each variable that begins as ours do, where `settings` are all that there are."""
    known = {setting.upper() for setting in settings} | {"CONFIG"}
    for variable in sorted(variables):
        name = variable.removeprefix(PREFIX)
        if name != variable and name not in known and _KUBERNETES.fullmatch(name) is None:
            near = difflib.get_close_matches(name, known, n=1)
            yield f"{variable} has no effect: it is not known{f', is {PREFIX}{near[0]} meant?' if near else ''}"
