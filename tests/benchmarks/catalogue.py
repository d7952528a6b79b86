"""Which benchmarks there are."""

from __future__ import annotations

import importlib

from lightwell.pipeline.errors import RequestError, did_you_mean

from .benchmark import Benchmark

HERE = (
    "cold",
    "large",
    "cached",
    "index",
    "memory",
    "accuracy",
    "ray",
    "probe",
    "inspect",
    "train",
    "gradcam",
    "planted",
    "defects",
)
"""Modules of this package with a ``BENCH``."""
ALL = ("cold", "large", "cached", "index", "memory", "ray", "probe", "inspect", "train", "gradcam")
"""What ``all`` runs, in order; ``accuracy``, ``planted`` and ``defects`` need labelled pictures."""


def find_benches(name: str) -> list[Benchmark]:
    """Find the benchmarks that a name stands for.

    Raises:
        RequestError: there is none of that name.
    """
    if name != "all" and name not in HERE:
        hint = did_you_mean(name, (*HERE, "all")) or "name one of them"
        raise RequestError(f"bench: expected one of {', '.join(HERE)} or all, got {name!r}; {hint}")
    names = ALL if name == "all" else (name,)
    return [importlib.import_module(f"{__package__}.{found}").BENCH for found in names]
