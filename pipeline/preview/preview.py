"""Previews of a plan: originals, their training versions of several epochs, and their evaluation version.

The pixels come from the executor that feeds use, with the parameters of (seed, epoch, sample): version ``k`` of a sample
equals what training reads in epoch ``k``, in whichever batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from ..atomic_io import write_text
from ..batch.annotations import AnnotationKinds, check_mix
from ..compiler.program import Program
from ..compiler.routing import Backend
from ..config.argument_checks import check_count, check_text, check_type
from ..errors import PlanError, RequestError, SourceError
from ..index.index import Index
from ..index.key_rows import rows_of
from ..plan.plan import Plan
from ..plan.view import View
from .mixed import Mixed, mixed_images
from .page import MARK, page, section
from .pictures import Names, Picture, picture_of
from .sample_choice import choose_rows
from .sample_source import Failed, Made, SampleSource
from .steps import StepShown, normalization_note

ALL_SPLITS = ""
"""As the name of a split."""
MOST_SAMPLES = 50
MOST_VERSIONS = 10
NUM_SAMPLES = 8
NUM_VERSIONS = 4
Kind = Literal["training", "evaluation"]


@dataclass(frozen=True, slots=True)
class VersionShown:
    """A sample as one view of the plan yields it."""

    kind: Kind
    epoch: int
    picture: Picture | None = None
    steps: tuple[StepShown, ...] = ()
    failed: Failed | None = None
    """Why there is no picture."""


@dataclass(frozen=True, slots=True)
class SampleShown:
    """One sample with its versions."""

    key: str
    label: str
    """Names of its classes; empty without a label."""
    split: str
    format: str
    mode: str
    """Of the stored pixels, as Pillow names them."""
    num_bytes: int
    orientation: int
    """Of EXIF; 1 where the stored pixels are upright."""
    original: Picture | None = None
    failed: Failed | None = None
    """Why it cannot be used at all; then there are no versions."""
    versions: tuple[VersionShown, ...] = ()


@dataclass(frozen=True, eq=False)
class Preview:
    """Preview of some samples of a plan; notebooks display it, ``save`` writes an HTML page that opens offline."""

    name: str
    plan: Plan
    split: str | None
    num_images: int
    """That the samples were chosen from."""
    samples: tuple[SampleShown, ...]
    names: Names
    epochs: tuple[int, ...]
    mixed: Mixed | None = None
    notes: tuple[str, ...] = ()

    def save(self, path: Path | str) -> int:
        """Write the page, whole or not at all; returns its size in bytes.

        Raises:
            OutputError: the file cannot be written.
            RequestError: another file that is no preview has this name.
        """
        path = Path(path)
        if path.exists() and not _is_preview(path):
            raise RequestError(
                f"--out: expected a new file or an earlier preview, got {str(path)!r}, which is something else; choose another"
            )
        content = page(self)
        write_text(path, content)
        return len(content.encode())

    def _repr_html_(self) -> str:
        """Return the part of the page below its title, as notebooks show it."""
        return section(self)

    def __repr__(self) -> str:
        return f"Preview({len(self.samples)} samples, epochs {list(self.epochs)}; save(path) writes a page)"


@dataclass(frozen=True)
class _Sources:
    """What makes a sample in each of its forms."""

    original: SampleSource
    training: SampleSource
    evaluation: SampleSource


@dataclass(frozen=True)
class _Request:
    """What is to be shown."""

    index: Index
    rows: np.ndarray
    epochs: tuple[int, ...]
    backend: Backend


def preview(
    plan: Plan,
    *,
    samples: int = NUM_SAMPLES,
    versions: int = NUM_VERSIONS,
    split: str | None = None,
    seed: int = 0,
    keys: Sequence[str] | None = None,
    first_epoch: int = 0,
    backend: Backend | None = None,
    index: Index | None = None,
    name: str = "",
) -> Preview:
    """Preview some samples of a plan: originals, training versions and the evaluation version.

    Args:
        plan: the plan; its cache is neither read nor written, and all images have its own size.
        samples: how many, over all classes.
        versions: of each, one for each epoch.
        split: to choose from, ``""`` for all; without it ``train`` where the index has it, else all.
        seed: of the choice of samples; parameters follow the plan's own seed.
        keys: samples to show, instead of a choice.
        first_epoch: of the versions.
        backend: what works on pixels; None takes DALI for plans on a GPU, OpenCV for plans on the CPU.
        index: of the plan, where it is open already.
        name: of the plan, for the title.

    Raises:
        PlanError: the plan or the request cannot be right.
        SourceError: the index cannot be used, or lacks the split or a key.
    """
    check_type("plan", plan, Plan)
    check_count("samples", samples, minimum=1, maximum=MOST_SAMPLES)
    check_count("versions", versions, minimum=0, maximum=MOST_VERSIONS)
    check_count("seed", seed)
    check_count("first_epoch", first_epoch)
    check_text("split", split)
    index = plan.load_index() if index is None else index
    notes: list[str] = []
    plan, backend = _placed(plan, backend, notes)
    plan = plan.model_copy(update={"progressive_size": None})
    if keys is not None:
        if not 0 < len(keys) <= MOST_SAMPLES:
            raise PlanError(f"keys: expected 1 to {MOST_SAMPLES} keys, got {len(keys)}; name fewer")
        chosen = rows = rows_of(index, keys, where="keys")
    else:
        split = _split_of(index, split)
        rows = index.rows(split)
        chosen = choose_rows(index, rows, samples, seed)
    epochs = tuple(range(first_epoch, first_epoch + versions))
    request = _Request(index, rows, epochs, backend)
    names = Names(index.classes, index.box_classes, index.keypoint_names)
    with TemporaryDirectory() as folder:
        plain, notes_of_cache = _without_cache(plan, Path(folder))
        shown = tuple(_samples(request, plain, chosen, names))
        mixed = None
        if plan.mix is not None and versions:
            check_mix(plan.mix, AnnotationKinds.of(index))
            mixed = mixed_images(plain, index, split, rows, epochs, names, backend)
    notes += [*notes_of_cache, *_notes(Program.compile(plain), shown)]
    return Preview(name, plan, split, len(rows), shown, names, epochs, mixed, tuple(notes))


def _samples(request: _Request, plan: Plan, chosen: np.ndarray, names: Names) -> Iterator[SampleShown]:
    index, rows, backend = request.index, request.rows, request.backend
    plan = plan.model_copy(update={"errors": plan.errors.model_copy(update={"on_error": "skip"})})
    program = Program.compile(plan)
    stored = Program.compile(Plan(index=plan.index, decode="exact", errors=plan.errors))
    training = View(shuffle=True, augment=True)
    with (
        closing(SampleSource(stored, View(), index, rows, backend="opencv")) as originals,
        closing(SampleSource(program, training, index, rows, backend=backend)) as trained,
        closing(SampleSource(program, View(), index, rows, backend=backend)) as evaluated,
    ):
        sources = _Sources(originals, trained, evaluated)
        for row in chosen.tolist():
            yield _sample(sources, index, row, request.epochs, names)


def _sample(sources: _Sources, index: Index, row: int, epochs: Sequence[int], names: Names) -> SampleShown:
    facts = _facts(index, row, names)
    original = sources.original.make(row, 0)
    if isinstance(original, Failed):
        return SampleShown(**facts, failed=original)
    stored = _picture(original, names)
    versions = [
        *(_version("training", epoch, sources.training.make(row, epoch), names) for epoch in epochs),
        _version("evaluation", 0, sources.evaluation.make(row, 0), names),
    ]
    return SampleShown(**facts, original=stored, versions=tuple(versions))


def _version(kind: Kind, epoch: int, made: Made | Failed, names: Names) -> VersionShown:
    if isinstance(made, Failed):
        return VersionShown(kind, epoch, failed=made)
    return VersionShown(kind, epoch, _picture(made, names), made.steps)


def _picture(made: Made, names: Names) -> Picture:
    return picture_of(made.finished.image, made.finished.annotations, names)


def _facts(index: Index, row: int, names: Names) -> dict[str, Any]:
    """Return what the index says of a row."""
    columns = ("key", "label", "labels", "split", "format", "mode", "bytes", "orientation")
    (found,) = index.table.select(columns).slice(row, 1).to_pylist()
    numbers = found["labels"] or ([] if found["label"] is None else [found["label"]])
    labels = [names.of_class(number) for number in numbers if number >= 0]
    return {
        "key": found["key"] or "",
        "label": ", ".join(labels),
        "split": found["split"] or "",
        "format": found["format"] or "",
        "mode": found["mode"] or "",
        "num_bytes": found["bytes"] or 0,
        "orientation": found["orientation"] or 1,
    }


def _placed(plan: Plan, backend: Backend | None, notes: list[str]) -> tuple[Plan, Backend]:
    """Take the CPU where the plan wants a GPU that is not there."""
    if plan.device == "gpu":
        import torch

        if not torch.cuda.is_available():
            notes.append(
                "The plan needs a GPU and this machine has none: the images were made on the CPU, with the same sampled "
                "parameters and pixels within the tolerances of TRANSFORMS.md."
            )
            return plan.model_copy(update={"device": "cpu"}), backend or "opencv"
    return plan, backend or ("dali" if plan.device == "gpu" else "opencv")


def _split_of(index: Index, asked: str | None) -> str | None:
    if asked is not None:
        return index.resolve_split(asked) if asked != ALL_SPLITS else None
    try:
        return index.resolve_split("train")
    except SourceError:
        return None


def _without_cache(plan: Plan, folder: Path) -> tuple[Plan, list[str]]:
    """Leave the plan's cache alone; where it changes pixels, let one do so that nobody else uses."""
    if plan.cache is None or plan.cache.fingerprint_fields() is None:
        return plan.model_copy(update={"cache": None}), []
    cache = plan.cache.model_copy(update={"dir": folder, "shared": False, "max_bytes": None})
    note = f"The cache keeps JPEGs of quality {plan.cache.jpeg_quality}, and their loss is visible here."
    return plan.model_copy(update={"cache": cache}), [note]


def _notes(program: Program, samples: Sequence[SampleShown]) -> Iterator[str]:
    pictures = [version.picture for one in samples for version in one.versions if version.picture]
    if program.normalization is not None:
        yield normalization_note(program.normalization)
    if any(picture.stretched for picture in pictures):
        yield "Float images outside 0 to 1 are stretched from their minimum to their maximum to be visible."
    shapes = {picture.shape for picture in pictures if picture}
    if len(shapes) > 1:
        yield (
            f"The finished images have {len(shapes)} different sizes, and those of one batch must be equal. "
            "End preprocess, or augment and evaluate, with a Resize or a crop."
        )


def _is_preview(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(1024)
