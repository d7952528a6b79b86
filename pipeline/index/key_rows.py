"""Looks up the row numbers of keys in an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import SourceError
from ..text import quoted
from .index import Index


def rows_of(index: Index, keys: Sequence[str], *, where: str = "view.keys") -> np.ndarray:
    """Return the row numbers of keys, in the given order.

    Args:
        index: the index to search.
        keys: keys of samples.
        where: the option that names them, for errors.

    Raises:
        SourceError: the index lacks a key.
    """
    rows = pc.index_in(pa.array(keys, pa.string()), value_set=index.table["key"].combine_chunks())
    if rows.null_count:
        missing = next(key for key, row in zip(keys, rows.to_pylist(), strict=True) if row is None)
        raise SourceError(
            f"{where}: expected keys of the index, got {quoted(missing)}; check its spelling, or index its source again"
        )
    return np.asarray(rows.to_numpy(), dtype=np.int64)
