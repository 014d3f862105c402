"""Rows of text: a table for who looks at a terminal, tab-separated lines for what reads them otherwise."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def show(rows: Sequence[Sequence[str]], columns: Sequence[str] = ()) -> None:
    """Prints rows, with a header of `columns` on a terminal."""
    if not sys.stdout.isatty():
        # Whole, and in a line for each: rich would wrap and shorten them to 80 columns.
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    import rich
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=bool(columns))
    for column in columns or [""] * max(map(len, rows), default=0):
        # Folded where there is too little room, never cut.
        table.add_column(column, overflow="fold")
    for row in rows:
        # Not as they are: a path with [brackets] would be taken for markup.
        table.add_row(*map(Text, row))
    rich.print(table)
