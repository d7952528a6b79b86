"""Columns of a user's table, such as camera or site, that the index keeps in its column ``groups``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import PlanError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa


def group_values(index: pa.Table, names: Sequence[str]) -> dict[str, list[str | None]]:
    """Return the texts of columns by name, in the order of the rows; None for an empty cell.

    Args:
        index: with the columns of an index.
        names: of columns in the table that was indexed.

    Raises:
        PlanError: the index has no such column.
    """
    if not names:
        return {}
    rows = [{} if text is None else json.loads(text) for text in index["groups"].to_pylist()]
    known = sorted(set().union(*rows))
    for name in names:
        if name not in known:
            cure = did_you_mean(name, known) or "choose one of these"
            found = f"an index with {known}" if known else "an index without other columns"
            cure = cure if known else "index a table with this column again"
            raise PlanError(
                f"groups: expected columns of the table that was indexed, got {name!r} and {found}; {cure}"
            )
    return {name: [row.get(name) for row in rows] for name in names}
