"""``lightwell doctor``: versions, decoders and throughput of this machine."""

from __future__ import annotations

from typing import Any

from .options import Json
from .output import print_json, print_table


def doctor(as_json: Json = False) -> None:
    """Print versions and hardware, and check the accuracy and throughput of each decoder and backend.

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
        ["GPU", found["gpu"] or "none; decoding on the CPU"],
    ]
    rows += [[name, version] for name, version in found["versions"].items()]
    rows += [[f"{name} decoder", result] for name, result in found["decoders"].items()]
    rows += [[f"{name} backend", _format_result(result)] for name, result in found["ways"].items()]
    print_table(["check", "result"], rows)


def _format_result(result: Any) -> str:
    if "error" in result:
        return f"failed: {result['error']}"
    throughput = f"{result['images_per_second']:,.0f} images/s"
    return f"{throughput}; differs from Albumentations by at most {result['max_levels']} of 255, {result['mean_levels']:.3f} on average"
