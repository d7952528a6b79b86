"""Formats the status of a service as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def status_line(status: Mapping[str, Any]) -> str:
    """Format progress and bottleneck of a service as one line."""
    made = f"{status['made']:,} batches made"
    if status["made_again"]:
        made += f" ({status['made_again']:,} of them again)"
    workers = f"{status['makers']} of {status['num_makers']} workers"
    kept = f"{status['kept']} of {status['num_batches']:,} kept, {status['kept_bytes'] / 1e6:,.1f} MB"
    return f"{status['name']}: {made} by {workers}; {kept}; {_bottleneck(status)}"


def consumer_table(status: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of the consumers."""
    header = ["consumer", "state", "epoch", "step", "batches", "waited", "others waited for it"]
    rows = [
        [
            one["name"],
            f"no heartbeat for {one['silent_s']:.0f} s" if one["state"] == "silent" else one["state"],
            str(one["position"]["epoch"]),
            str(one["position"]["step"]),
            f"{one['number']:,} of {status['num_batches']:,}",
            f"{one['waited_s']:.1f} s",
            f"{one['kept_waiting_s']:.1f} s",
        ]
        for one in status["consumers"]
    ]
    return header, rows


def _bottleneck(status: Mapping[str, Any]) -> str:
    if status["missing"]:
        return f"waiting for {status['missing']} more consumers"
    slowest = next((one for one in status["consumers"] if one["name"] == status["slowest"]), None)
    if slowest is None:
        return "no consumer is reading" if status["consumers"] else "no consumer has attached yet"
    text = f"{slowest['name']} is the slowest, at batch {slowest['number']:,}"
    if slowest["name"] in status["holding"]:
        return f"{text}, and blocks the others ({slowest['kept_waiting_s']:.1f} s so far)"
    if slowest["waits"]:
        return f"{text}, and waits for the workers"
    return text
