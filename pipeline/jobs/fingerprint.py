"""Fingerprints of what determines a job's records: of plain values, and of files such as weights."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any


def fingerprint_of(facts: Any) -> str:
    """Hash JSON values: the first 16 hex digits of SHA-256, whatever the order of keys."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the first 16 hex digits of a file's SHA-256; kept while size and modification time stay the same."""
    facts = path.stat()
    return _digest(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001  (keys of the cache)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
