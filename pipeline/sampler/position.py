"""Positions: small JSON values from which a feed can resume.

A position belongs to a plan and a view, not to an engine or a rank: batches are global, so that a run of four ranks can
be resumed with two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..errors import PlanError
from ..plan.view import View

POSITION_VERSION = 1
_CURE = "pass a position returned by `feed.position()`, or start without one"


def make_position(view: View, *, plan: str, epoch: int, step: int) -> dict[str, Any]:
    """Create a position.

    Args:
        view: the view that is read.
        plan: fingerprint of the plan.
        epoch: of the next batch.
        step: of the next batch within its epoch.
    """
    return {
        "version": POSITION_VERSION,
        "plan": plan,
        "view": view_fields(view),
        "epoch": epoch,
        "step": step,
    }


def batches_before(position: Mapping[str, Any], view: View, *, plan: str, num_steps: int) -> int:
    """Return the number of batches of a view before a position.

    Raises:
        PlanError: not a position, or one of another version, plan or view, or outside the view.
    """
    expected = make_position(view, plan="", epoch=0, step=0)
    if not isinstance(position, Mapping) or set(position) != set(expected):
        got = sorted(position) if isinstance(position, Mapping) else type(position).__name__
        raise PlanError(f"position: expected the keys {sorted(expected)}, got {got}; {_CURE}")
    if position["version"] != POSITION_VERSION:
        raise PlanError(
            f"position: expected version {POSITION_VERSION}, got {position['version']!r}; {_CURE}"
        )
    if position["plan"] != plan:
        raise PlanError(f"position: expected one of this plan ({plan}), got one of another ({position['plan']}); its batches, "
                        "or the files of its index, differ: resume with the same plan, or start without a "
                        "position")  # fmt: skip
    _check_view(position["view"], expected["view"])
    epoch, step = position["epoch"], position["step"]
    if type(epoch) is int and type(step) is int and 0 <= step < max(1, num_steps):
        before = (epoch - view.first_epoch) * num_steps + step
        if 0 <= before <= view.num_epochs * num_steps:
            return before
    raise PlanError(f"position: expected a step below {num_steps} in epochs {view.first_epoch} to "
                    f"{view.first_epoch + view.num_epochs - 1}, got epoch {epoch!r}, step {step!r}; {_CURE}")  # fmt: skip


def view_fields(view: View) -> dict[str, Any]:
    """Return the fields of a view that determine its global batches; keys are replaced by their hash."""
    content = {name: value for name, value in asdict(view).items() if name not in ("rank", "num_ranks")}
    if view.keys is not None:
        joined = "\0".join(view.keys).encode("utf-8", "surrogateescape")
        content["keys"] = hashlib.blake2b(joined, digest_size=8).hexdigest()
    return content


def _check_view(got: Any, expected: Mapping[str, Any]) -> None:
    if got == expected:
        return
    found = got if isinstance(got, Mapping) else {}
    names = [name for name in expected if found.get(name) != expected[name]]
    shown = "; ".join(f"{name} was {found.get(name)!r} and is {expected[name]!r}" for name in names)
    raise PlanError(f"position: expected one of this view, got one where {shown or got}; open the view it was taken from, or "
                    "start without a position")  # fmt: skip
