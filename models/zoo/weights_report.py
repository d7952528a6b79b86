"""Weights report: source of a model's weights, loaded tensors and randomly initialised layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

from ...pipeline.text import first_few

if TYPE_CHECKING:
    from torch import nn

_ATTRIBUTE = "lightwell_weights_report"
_MAX_NAMES = 200
"""Maximum length of each list of names in a checkpoint's metadata."""


@dataclass(frozen=True)
class WeightsReport:
    """Result of loading weights into a model."""

    source: str
    """``torchvision weights of resnet18``, the name of a file, or ``none``."""
    num_loaded: int = 0
    """Number of tensors loaded from the source."""
    missing: tuple[str, ...] = ()
    """Tensors of the model that are not in the source and keep their initial values."""
    left_over: tuple[str, ...] = ()
    """Tensors of the source that are not in the model."""
    untrained: tuple[str, ...] = ()
    """Randomly initialised layers. A model with any of them has to be trained before its predictions are meaningful."""
    entry: str = ""
    """Entry of the file with the weights, such as ``state_dict_ema``; empty for the root."""
    other_entries: tuple[str, ...] = ()
    """Entries that match equally well; ``weights_entry`` selects one."""
    prefix: str = ""
    """Prefix removed from the names of the tensors, such as ``module.``."""
    added_prefix: str = ""
    """Prefix added to the names of the tensors, such as ``features.`` for the state dict of a part of the model."""
    notes: tuple[str, ...] = ()
    """Automatic choices and warnings, as sentences."""

    def line(self) -> str:
        """Return the report as one line of text."""
        counts = (
            f"{self.num_loaded} tensors loaded, {len(self.missing)} missing, {len(self.left_over)} left over"
        )
        parts = [f"weights: {self.source}: {counts}"]
        if self.entry:
            others = f"; other entries: {', '.join(self.other_entries)}" if self.other_entries else ""
            parts.append(f"entry {self.entry!r}{others}")
        if self.prefix:
            parts.append(f"prefix {self.prefix!r} removed")
        if self.added_prefix:
            parts.append(f"prefix {self.added_prefix!r} added")
        if self.untrained:
            parts.append(f"randomly initialised: {first_few(self.untrained)}")
        return "; ".join([*parts, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return asdict(self)

    def dump(self) -> str:
        """Return the report as JSON for a checkpoint's metadata, with long lists truncated."""
        content = {
            name: value[:_MAX_NAMES] if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return json.dumps(content)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the output of ``dump``; unknown keys are ignored.

        Raises:
            ValueError: the text is not a weights report.
        """
        content = json.loads(text)
        if not isinstance(content, Mapping) or not isinstance(content.get("source"), str):
            raise ValueError("not a weights report")
        known: dict[str, Any] = {
            name: tuple(map(str, value)) if isinstance(value, list) else value
            for name, value in content.items()
            if name in cls.__dataclass_fields__
        }
        plain = cls("")
        if wrong := [name for name, value in known.items() if type(value) is not type(getattr(plain, name))]:
            raise ValueError(f"a weights report whose {wrong[0]} has another type")
        return cls(**known)

    def with_new_layers(self, names: tuple[str, ...], note: str = "") -> Self:
        """Return the report with more untrained layers, except those inside layers it already lists."""
        new = tuple(
            name
            for name in names
            if not any(name == old or name.startswith(f"{old}.") for old in self.untrained)
        )
        notes = (*self.notes, note) if note else self.notes
        return replace(self, untrained=(*self.untrained, *new), notes=notes)

    def with_note(self, note: str) -> Self:
        """Return the report with an additional note."""
        return replace(self, notes=(*self.notes, note))


def weights_report(model: nn.Module) -> WeightsReport:
    """Return the weights report of a model from ``build_model`` or ``load_model``.

    ``untrained`` is empty if every layer has been trained or loaded. The source of any other module is ``unknown``.
    """
    return cast("WeightsReport", getattr(model, _ATTRIBUTE, WeightsReport("unknown")))


def attach_report(model: nn.Module, report: WeightsReport) -> None:
    """Attach a report to a model; it is copied with the model but not part of its ``state_dict``."""
    setattr(model, _ATTRIBUTE, report)
