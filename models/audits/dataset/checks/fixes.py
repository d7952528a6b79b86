"""Rows of the fix list: what to do about single images of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

FixAction = Literal["drop", "relabel", "move", "review"]
"""``review`` is a suggestion of a class that somebody has to look at: it changes nothing until it says ``relabel``."""
FIX_SCHEMA = pa.schema(
    {name: pa.string() for name in ("key", "action", "value", "reason", "finding_id")},
)
"""Columns of fix lists: the fields of `FixRow`."""


@dataclass(frozen=True, slots=True)
class FixRow:
    """A proposed change of one image's row in the index."""

    key: str
    action: FixAction
    value: str
    """New or suggested class, or new split; empty for dropped images."""
    reason: str
    finding_id: str
