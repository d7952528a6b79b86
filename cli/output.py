"""Print results as tables or JSON."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from ..pipeline.text import one_line


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table; 160 characters wide if stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*map(one_line, row))
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def configure_logging(*, quiet: bool) -> None:
    """With ``--quiet``, limit the log of the package to errors."""
    if quiet:
        logging.getLogger("lightwell").setLevel(logging.ERROR)
