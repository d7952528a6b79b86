"""Which benchmarks there are, and which come later."""

from __future__ import annotations

import importlib

from lightwell.pipeline.errors import RequestError, did_you_mean

from .benchmark import Benchmark

HERE = ("cold", "large", "cached", "index", "memory", "accuracy", "ray", "probe", "train")
"""Modules of this package with a ``BENCH``."""
ALL = ("cold", "large", "cached", "index", "memory", "ray", "probe", "train")
"""What ``all`` runs, in order; ``accuracy`` needs labels beside the pictures."""
LATER = {"gradcam": 5}
"""The part that a benchmark comes with."""


def find_benches(name: str) -> list[Benchmark]:
    """Find the benchmarks that a name stands for.

    Raises:
        RequestError: there is none of that name, or not yet.
    """
    if name in LATER:
        raise RequestError(
            f"bench {name}: comes with part {LATER[name]}; expected one of {', '.join(HERE)} or all, got {name!r}"
        )
    if name != "all" and name not in HERE:
        hint = did_you_mean(name, (*HERE, *LATER, "all")) or "name one of them"
        raise RequestError(f"bench: expected one of {', '.join(HERE)} or all, got {name!r}; {hint}")
    names = ALL if name == "all" else (name,)
    return [importlib.import_module(f"{__package__}.{found}").BENCH for found in names]
