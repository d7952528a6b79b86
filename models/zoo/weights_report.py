"""Where the weights of a model come from, what was loaded, and which layers still have random values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from torch import nn

_ATTRIBUTE = "lightwell_weights_report"
_MOST_NAMES = 200
"""Names that are kept of each list in a checkpoint's metadata."""


@dataclass(frozen=True)
class WeightsReport:
    """The result of loading weights into a model."""

    source: str
    """``torchvision weights of resnet18``, the name of a file, or ``none``."""
    num_loaded: int = 0
    """Tensors of the model that the source gave."""
    missing: tuple[str, ...] = ()
    """Tensors of the model that the source does not have; they keep their initial values."""
    left_over: tuple[str, ...] = ()
    """Tensors of the source that the model has no place for."""
    untrained: tuple[str, ...] = ()
    """Layers with random values. Predictions of a model that has any mean nothing before training."""
    entry: str = ""
    """Entry of the file that the weights were taken from, such as ``state_dict_ema``; empty for the file itself."""
    other_entries: tuple[str, ...] = ()
    """Entries that would have fitted too; ``weights_entry`` chooses one."""
    prefix: str = ""
    """What was taken off the names of the tensors, such as ``module.``."""
    notes: tuple[str, ...] = ()
    """Choices that were made, and warnings, as sentences."""

    def line(self) -> str:
        """Return the report as one line of text."""
        counts = (
            f"{self.num_loaded} tensors loaded, {len(self.missing)} missing, {len(self.left_over)} left over"
        )
        parts = [f"weights: {self.source}: {counts}"]
        if self.entry:
            others = f"; also there: {', '.join(self.other_entries)}" if self.other_entries else ""
            parts.append(f"entry {self.entry!r}{others}")
        if self.prefix:
            parts.append(f"prefix {self.prefix!r} removed")
        if self.untrained:
            parts.append(f"random, to be trained: {_first_few(self.untrained)}")
        return "; ".join([*parts, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)

    def dump(self) -> str:
        """Return the report as JSON for a checkpoint's metadata, long lists of names cut."""
        content = {
            name: value[:_MOST_NAMES] if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return json.dumps(content)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``dump`` wrote; keys of later versions are ignored.

        Raises:
            ValueError: the text is something else.
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
            raise ValueError(f"a weights report whose {wrong[0]} is of another kind")
        return cls(**known)

    def with_new_layers(self, names: tuple[str, ...], note: str = "") -> Self:
        """Return the report with more untrained layers; layers inside those that it lists already add nothing."""
        new = tuple(
            name
            for name in names
            if not any(name == old or name.startswith(f"{old}.") for old in self.untrained)
        )
        notes = (*self.notes, note) if note else self.notes
        return replace(self, untrained=(*self.untrained, *new), notes=notes)

    def with_note(self, note: str) -> Self:
        """Return the report with one more note."""
        return replace(self, notes=(*self.notes, note))


def weights_report(model: nn.Module) -> WeightsReport:
    """Return the weights report of a model that ``build_model`` or ``load_model`` made.

    ``untrained`` is empty for a model whose every layer has been trained or loaded. The source of any other module is
    ``unknown``.
    """
    return cast("WeightsReport", getattr(model, _ATTRIBUTE, WeightsReport("unknown")))


def attach_report(model: nn.Module, report: WeightsReport) -> None:
    """Store a report with a model; it moves and is copied with it, and is in no ``state_dict``."""
    setattr(model, _ATTRIBUTE, report)


def _first_few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
