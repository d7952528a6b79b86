"""``lightwell doctor``: versions, decoders and speed of this machine."""

from __future__ import annotations

from typing import Any

from .options import Json
from .output import print_json, print_table


def doctor(as_json: Json = False) -> None:
    """Say what this machine has, whether its decoders agree, and how near and fast each way of making pictures is.

    Example: lightwell doctor
    """
    from ..pipeline.tools.doctor import run_checks

    found = run_checks()
    if as_json:
        print_json(found)
        return
    rows = [
        ["python", found["python"]],
        ["cores", str(found["cores"])],
        ["GPU", found["gpu"] or "none; DALI decodes on the CPU"],
    ]
    rows += [[name, version] for name, version in found["versions"].items()]
    rows += [[f"decode with {name}", verdict] for name, verdict in found["decoders"].items()]
    rows += [[f"pictures by {name}", _verdict(way)] for name, way in found["ways"].items()]
    print_table(["what", "found"], rows)


def _verdict(way: Any) -> str:
    if "error" in way:
        return f"failed: {way['error']}"
    pace = f"{way['images_per_second']:,.0f} a second"
    return f"{pace}; differ from Albumentations by at most {way['max_levels']} of 255, {way['mean_levels']:.3f} on average"
