"""Validation of checkpoint values other than weights: a digest detects damage but not a forged file.

Each check raises ValueError with the expected and the actual value; ``checkpoint`` adds the name of the file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_STATE_NAMES = {
    "AdamW": (frozenset({"step", "exp_avg", "exp_avg_sq"}),),
    "SGD": (frozenset[str](), frozenset({"momentum_buffer"})),
}
"""Names of a parameter's state tensors, by optimizer."""
MIN_TEMPERATURE = 0.01
"""Lower limit of temperatures; the upper one is its reciprocal."""
_NOT_NEGATIVE = frozenset({"step", "exp_avg_sq"})


def check_classes(classes: Any) -> tuple[str, ...]:
    """Validate class names and return them as a tuple."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"expected classes as a list of names, got {_short(classes)}")
    return tuple(classes)


def parse_temperature(text: str) -> float:
    """Parse the temperature of a checkpoint: a number above 0."""
    value = float(text)
    if not (math.isfinite(value) and MIN_TEMPERATURE <= value <= 1 / MIN_TEMPERATURE):
        raise ValueError(
            f"expected a temperature of {MIN_TEMPERATURE:g} to {1 / MIN_TEMPERATURE:g}, got {_short(text)}"
        )
    return value


def check_thresholds(thresholds: Any) -> tuple[float, ...]:
    """Validate probabilities and return them as a tuple."""
    if not isinstance(thresholds, list) or not all(
        _is_finite(each) and 0 <= each <= 1 for each in thresholds
    ):
        raise ValueError(f"expected thresholds as probabilities, got {_short(thresholds)}")
    return tuple(map(float, thresholds))


def check_mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Validate that a value is a JSON object and return it."""
    if not isinstance(value, dict):
        raise ValueError(f"expected {name} as names and values, got {_short(value)}")
    return value


def check_history(history: Any, monitored: Collection[Any] = ()) -> tuple[Mapping[str, Any], ...]:
    """Validate and return the metrics of finished epochs: finite numbers or None, or tables where nothing monitors them.

    Args:
        history: a list with the metrics of each epoch.
        monitored: names of metrics that are compared between epochs, besides the loss.
    """
    if not isinstance(history, list):
        raise ValueError(f"expected history as a list of epochs, got {_short(history)}")
    for row in history:
        check_mapping("an epoch of the history", row)
        for metric, value in row.items():
            is_table = isinstance(value, dict | list) and metric != "loss" and metric not in monitored
            if value is not None and not is_table and not _is_finite(value):
                raise ValueError(f"expected a finite {metric} in the history, got {_short(value)}")
    return tuple(history)


def check_progress(values: Any, names: Sequence[str]) -> None:
    """Validate the progress of a run within an epoch.

    Args:
        values: the progress as JSON.
        names: its fields.
    """
    if sorted(check_mapping("progress", values)) != sorted(names):
        raise ValueError(f"expected progress with {', '.join(names)}, got {_short(sorted(values))}")
    if values["position"] is not None:
        check_mapping("position", values["position"])
    counts = {
        "step": values["step"],
        "num_read": values["num_read"],
        **check_mapping("counts", values["counts"]),
    }
    for name, value in counts.items():
        if type(value) is not int or not 0 <= value < 2**63:
            raise ValueError(f"expected {name} as a count, got {_short(value)}")
    for name in ("loss", "seconds"):
        if not _is_finite(values[name]):
            raise ValueError(f"expected {name} as a finite number, got {_short(values[name])}")


def check_sums(sums: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor] | None) -> None:
    """Validate the running metrics of an epoch: counts and finite sums, as the task keeps them.

    Args:
        sums: as read.
        expected: empty sums of the task; None checks the values alone.
    """
    if expected is not None and sums and sums.keys() != expected.keys():
        raise ValueError(f"expected the sums {sorted(expected)}, got {_short(sorted(sums))}")
    for name, value in sums.items():
        if expected is not None and (value.dtype, value.shape) != (
            expected[name].dtype,
            expected[name].shape,
        ):
            want, got = ((each.dtype, tuple(each.shape)) for each in (expected[name], value))
            raise ValueError(f"expected {name} as {want[0]} {want[1]}, got {got[0]} {got[1]}")
        if not bool((value.isfinite() if value.is_floating_point() else value >= 0).all()):
            raise ValueError(f"expected {name} as finite sums and counts of at least 0, got others")


def check_optimizer_state(
    state: Mapping[int, Mapping[str, torch.Tensor]], optimizer: torch.optim.Optimizer
) -> None:
    """Validate optimizer state: names, shapes and value ranges for this optimizer and its parameters."""
    import torch

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kind = type(optimizer).__name__
    for number, tensors in state.items():
        if not 0 <= number < len(parameters):
            raise ValueError(f"expected state of {len(parameters):,} parameters, got one numbered {number}")
        if kind in _STATE_NAMES and set(tensors) not in _STATE_NAMES[kind]:
            raise ValueError(
                f"expected the state of {kind}, got {_short(sorted(tensors))} of parameter {number}"
            )
        for name, tensor in tensors.items():
            shape = torch.Size() if name == "step" else parameters[number].shape
            which = f"{name} of parameter {number}"
            if tensor.shape != shape:
                raise ValueError(f"expected {which} of shape {tuple(shape)}, got {tuple(tensor.shape)}")
            if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
                raise ValueError(f"expected {which} as finite numbers, got NaN, infinity or {tensor.dtype}")
            if name in _NOT_NEGATIVE and bool((tensor < 0).any()):
                raise ValueError(f"expected {which} of at least 0, got a negative value")


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
