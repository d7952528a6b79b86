"""Match the classes of an index with the outputs of a model, by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ....pipeline.errors import ModelError, PlanError, did_you_mean

IMAGENET = "imagenet"
INDEX = "index"
MAX_LISTED = 5
"""Maximum number of classes listed in a note."""


@dataclass(frozen=True)
class OutputNames:
    """Names of a model's outputs, in order, and their source."""

    names: tuple[str, ...] = ()
    """Empty if the outputs have no names."""
    source: str = "none"
    """Source of the names, such as ``the checkpoint``."""
    as_index: bool = False
    """True if the job declares that the outputs are in the order of the index's classes."""


@dataclass(frozen=True)
class ClassMatch:
    """Common numbering of the classes of an index and the outputs of a model, those of the index first."""

    names: tuple[str, ...]
    """Names of all classes by number: those of the index, then the remaining ones of the model."""
    num_index: int
    """Number of classes of the index."""
    class_of_output: tuple[int, ...]
    """Class number of each output of the model."""
    outputs: tuple[int, ...]
    """Output of each class of the index; -1 if the model does not have it."""
    how: Literal["name", "number", "none"]
    """``none`` if no class is matched, so that accuracy cannot be measured."""
    source: str
    """Source of the names of the outputs."""
    notes: tuple[str, ...] = ()
    """Unmatched classes and assumptions, as sentences."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """Classes of the index that the model does not have."""
        return tuple(name for name, output in zip(self.names, self.outputs, strict=False) if output < 0)


def normalize_name(name: str) -> str:
    """Normalise a name for inexact matching: case-insensitive, with '_', '-' and whitespace equal."""
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def read_names(path: Path) -> tuple[str, ...]:
    """Read class names in the order of outputs: a JSON list, or a text file with one name per line.

    Raises:
        PlanError: the file cannot be read or has another format.
    """
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise PlanError(
            f"class_names: expected a text file with one name per line or a JSON list, got {path.name!r} "
            f"({type(error).__name__}); check the path and the content"
        ) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise PlanError(
            f"class_names: expected a list of names, one for each output, got {path.name!r} with something else; "
            'write ["cat", "dog"]'
        )
    while len(names) > 1 and not names[-1].strip():
        names.pop()
    return tuple(name.strip() for name in names)


def match_classes(
    index_classes: Sequence[str],
    num_labels: int,
    outputs: OutputNames,
    num_outputs: int,
    class_map: Mapping[str, str | int] | None = None,
) -> ClassMatch:
    """Match the classes of an index with the outputs of a model.

    A class is matched by ``class_map``, else by its exact name, else by its normalised name (see ``normalize_name``).
    Classes are matched by number only if the index has numbers instead of names, or if the job declares it.

    Args:
        index_classes: names by label; empty if the index has numbers or no labels.
        num_labels: the highest label of the index plus one.
        outputs: names of the outputs.
        num_outputs: number of outputs of the model.
        class_map: class of the index -> name or number of an output.

    Raises:
        ModelError: the number of names differs from the number of outputs.
        PlanError: ``class_map`` has an unknown class, or maps two classes to one output.
    """
    if outputs.names and len(outputs.names) != num_outputs:
        raise ModelError(
            f"class_names: expected {num_outputs} names, one for each output of the model, got {len(outputs.names)} "
            f"from {outputs.source}; give the names of this model"
        )
    index_names = [index_classes[n] if n < len(index_classes) else f"class {n}" for n in range(num_labels)]
    index_names += list(index_classes[num_labels:])
    if outputs.as_index and len(index_names) != num_outputs:
        raise ModelError(
            f"class_names: expected as many outputs as the index has classes, {len(index_names)}, got {num_outputs}; "
            "give the names of the outputs as a list"
        )
    by_number = not index_classes or outputs.as_index
    notes: list[str] = []
    if by_number:
        found = [number if number < num_outputs else -1 for number in range(len(index_names))]
        if index_names and not outputs.as_index:
            notes.append(
                "the index has class numbers and no names; they are used as numbers of the model's outputs"
            )
            if outputs.names:
                index_names = [*outputs.names[: len(index_names)], *index_names[len(outputs.names) :]]
    else:
        found = _by_name(index_names, outputs.names)
    for name, target in (class_map or {}).items():
        found[_index_of(name, index_names, "a class of the index")] = _output(
            target, outputs.names, num_outputs
        )
    taken = [output for output in found if output >= 0]
    duplicate = next((output for output in taken if taken.count(output) > 1), None)
    if duplicate is not None:
        duplicates = [index_names[n] for n, output in enumerate(found) if output == duplicate]
        raise PlanError(
            f"class_map: expected another output for every class, got output {duplicate} for {duplicates}; "
            "map one of them to another, or index them as one class"
        )
    unmatched = [output for output in range(num_outputs) if output not in set(taken)]
    extra_names = [outputs.names[output] if outputs.names else f"output {output}" for output in unmatched]
    numbers = {output: number for number, output in enumerate(found) if output >= 0}
    numbers |= {output: len(index_names) + position for position, output in enumerate(unmatched)}
    how: Literal["name", "number", "none"] = (
        "none" if not taken else "number" if by_number and not class_map else "name"
    )
    missing = [name for name, output in zip(index_names, found, strict=True) if output < 0]
    if missing:
        notes.append(_missing(missing, index_names, outputs, num_outputs))
    return ClassMatch(
        names=(*index_names, *extra_names),
        num_index=len(index_names),
        class_of_output=tuple(numbers[output] for output in range(num_outputs)),
        outputs=tuple(found),
        how=how,
        source=outputs.source,
        notes=tuple(notes),
    )


def _by_name(index_names: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the output of each class of the index by name; -1 for no match and for ambiguous names."""
    exact = _unique(names)
    folded = _unique([normalize_name(name) for name in names])
    own = [normalize_name(name) for name in index_names]
    return [
        exact.get(name, folded.get(folded_name, -1) if own.count(folded_name) == 1 else -1)
        for name, folded_name in zip(index_names, own, strict=True)
    ]


def _unique(names: Sequence[str]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        positions[name] = -1 if name in positions else position
    return positions


def _index_of(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise PlanError(
            f"class_map: expected {what}, got {name!r}; {did_you_mean(name, names) or 'check the spelling'}"
        )
    return names.index(name)


def _output(target: str | int, names: Sequence[str], num_outputs: int) -> int:
    if isinstance(target, int):
        if not 0 <= target < num_outputs:
            raise PlanError(
                f"class_map: expected an output from 0 to {num_outputs - 1}, got {target}; check the number"
            )
        return target
    if not names:
        raise PlanError(
            f"class_map: expected the number of an output, got {target!r}, and the outputs have no names; "
            "give a number, or class_names"
        )
    if list(names).count(target) > 1:
        numbers = [number for number, name in enumerate(names) if name == target]
        raise PlanError(
            f"class_map: expected one output, got {target!r}, which {numbers} are called; give the number"
        )
    return _index_of(target, names, "a class of the model")


def _missing(
    missing: Sequence[str], index_names: Sequence[str], outputs: OutputNames, num_outputs: int
) -> str:
    few = ", ".join(missing[:MAX_LISTED]) + (
        f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
    )
    if not outputs.names:
        return (
            f"the model's {num_outputs} outputs have no names and the index has {len(index_names)} classes ({few}), so "
            "accuracy is not measured; give class_names (a list, a file, 'imagenet', or 'index' if the outputs are in "
            "the order of the index)"
        )
    return (
        f"{len(missing)} of {len(index_names)} classes of the index are not among the {num_outputs} classes of the model "
        f"({few}); their images are excluded from the accuracy; use class_map to assign outputs"
    )
