"""What the status of a service says to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def sum_up(status: Mapping[str, Any]) -> str:
    """Say in one line how far a service is and who is the slowest."""
    made = f"{status['made']:,} batches made"
    if status["made_again"]:
        made += f" ({status['made_again']:,} of them again)"
    makers = f"{status['makers']} of {status['num_makers']} makers"
    kept = f"{status['kept']} of {status['num_batches']:,} kept, {status['kept_bytes'] / 1e6:,.1f} MB"
    return f"{status['name']}: {made} by {makers}; {kept}; {_whom_it_waits_for(status)}"


def consumer_rows(status: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Lay the consumers out as a table: header and cells."""
    header = ["consumer", "is", "epoch", "step", "batches", "waited", "others waited for it"]
    rows = [
        [
            one["name"],
            f"silent for {one['silent_s']:.0f} s" if one["state"] == "silent" else one["state"],
            str(one["position"]["epoch"]),
            str(one["position"]["step"]),
            f"{one['number']:,} of {status['num_batches']:,}",
            f"{one['waited_s']:.1f} s",
            f"{one['kept_waiting_s']:.1f} s",
        ]
        for one in status["consumers"]
    ]
    return header, rows


def _whom_it_waits_for(status: Mapping[str, Any]) -> str:
    if status["missing"]:
        return f"waits for {status['missing']} more consumers"
    slowest = next((one for one in status["consumers"] if one["name"] == status["slowest"]), None)
    if slowest is None:
        return "nobody reads" if status["consumers"] else "nobody has come yet"
    told = f"{slowest['name']} is the slowest, at batch {slowest['number']:,}"
    if slowest["name"] in status["holding"]:
        return f"{told}, and holds the others back ({slowest['kept_waiting_s']:.1f} s so far)"
    if slowest["waits"]:
        return f"{told}, and waits for the makers"
    return told
