"""The first images of a training batch as MixUp or CutMix leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from ..batch.annotations import NO_ANNOTATIONS, AnnotationKinds, Annotations, collate_annotations
from ..batch.batch import Batch
from ..batch.mix import mix_batch
from ..compiler.program import Program
from ..compiler.routing import Backend
from ..executor.sample_worker import Sample
from ..index.index import Index
from ..plan.plan import Mix, Plan
from ..plan.view import View
from ..sampler.schedule import Schedule
from .pictures import Names, Picture, picture_of
from .sample_source import Made, SampleSource

NUM_MIXED = 8


@dataclass(frozen=True, slots=True)
class MixedImage:
    """An image of a batch after mixing."""

    key: str
    label: str
    picture: Picture
    mixed_label: str = ""
    """Label of the image that was mixed in."""
    share: float = 0.0
    """Of ``mixed_label`` in the target, 0..1."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """The first images of the first batch of an epoch."""

    mix: Mix
    epoch: int
    images: tuple[MixedImage, ...] = ()
    """None where no batch can be made of them."""
    is_mixed: bool = False
    """Whether this batch was mixed, by ``p``."""


def mixed_images(
    plan: Plan,
    index: Index,
    split: str | None,
    rows: np.ndarray,
    epochs: Sequence[int],
    names: Names,
    backend: Backend,
) -> Mixed:
    """Make the first images of the first mixed batch: batch 0 of the first epoch in which it is mixed.

    Args:
        plan: with a mix.
        index: of the samples.
        split: that training reads.
        rows: of the split.
        epochs: that are looked at.
        names: of annotations.
        backend: what works on pixels.
    """
    assert plan.mix is not None, "asked only of plans with a mix"
    rule = plan.errors.on_error if plan.errors.on_error != "raise" else "skip"
    plan = plan.model_copy(update={"errors": plan.errors.model_copy(update={"on_error": rule})})
    program = Program.compile(plan)
    view = View(split=split, shuffle=True, augment=True)
    with closing(SampleSource(program, view, index, rows, backend=backend)) as source:
        found = [
            _of_epoch(
                program, source, _first_batch(plan, view, index, rows, epochs[0]), epochs[0], index, names
            )
        ]
        for epoch in epochs[1:]:
            if found[-1].is_mixed or not found[-1].images:
                break
            first = _first_batch(plan, view, index, rows, epoch)
            found.append(_of_epoch(program, source, first, epoch, index, names))
    return found[-1]


def _first_batch(plan: Plan, view: View, index: Index, rows: np.ndarray, epoch: int) -> np.ndarray:
    return Schedule.of(plan, replace(view, first_epoch=epoch), index, rows).batch(0).rows


def _of_epoch(
    program: Program, source: SampleSource, rows: np.ndarray, epoch: int, index: Index, names: Names
) -> Mixed:
    """Mix the images that are shown and the one before them; the parameters do not depend on the batch size."""
    mix = program.plan.mix
    assert mix is not None, "asked only of plans with a mix"
    whole = len(rows) <= NUM_MIXED
    made: list[Sample] = []
    for row in rows.tolist():
        if len(made) == NUM_MIXED + 1:
            break
        one = source.make(row, epoch)
        if isinstance(one, Made):
            made.append(replace(one.finished, image=_kept(one.finished)))
    if not made or len({one.image.shape for one in made}) > 1:
        return Mixed(mix, epoch)
    batch = _batch(made, epoch, AnnotationKinds.of(index))
    done = mix_batch(batch, mix, seed=program.plan.seed, bbox_params=program.plan.bbox_params)
    first = 0 if whole else 1
    images = tuple(_image(done, row, names) for row in range(first, len(done)))
    return Mixed(mix, epoch, images, done.mixed_labels is not None)


def _kept(finished: Sample) -> np.ndarray:
    image = finished.image if isinstance(finished.image, np.ndarray) else finished.image.cpu().numpy()
    return np.array(image if image.ndim == 3 else image[:, :, None])


def _batch(made: Sequence[Sample], epoch: int, kinds: AnnotationKinds) -> Batch:
    import torch

    images = torch.from_numpy(np.stack([one.image for one in made]))
    if images.dtype != torch.uint8:
        images = images.float().permute(0, 3, 1, 2)
    height, width = made[0].image.shape[:2]
    return Batch(
        images=images,
        labels=torch.tensor([one.label for one in made], dtype=torch.int64),
        keys=tuple(one.key for one in made),
        epoch=epoch,
        step=0,
        replaced=np.array([one.replaced for one in made], bool),
        padding=np.zeros(len(made), bool),
        **collate_annotations([one.annotations for one in made], kinds, (height, width)),
    )


def _image(batch: Batch, row: int, names: Names) -> MixedImage:
    image = batch.images[row]
    pixels = image if image.dtype.itemsize == 1 else image.permute(1, 2, 0)  # uint8 HWC or float CHW
    picture = picture_of(pixels, _annotations(batch, row), names)
    label = names.of_class(int(batch.labels[row]))
    if batch.mixed_labels is None or batch.mixed_weights is None:
        return MixedImage(batch.keys[row], label, picture)
    mixed_label = names.of_class(int(batch.mixed_labels[row]))
    return MixedImage(batch.keys[row], label, picture, mixed_label, float(batch.mixed_weights[row]))


def _annotations(batch: Batch, row: int) -> Annotations:
    if batch.masks is None and batch.boxes is None and batch.keypoints is None:
        return NO_ANNOTATIONS
    return Annotations(
        batch.masks[row].numpy() if batch.masks is not None else None,
        batch.boxes[row] if batch.boxes is not None else None,
        batch.box_labels[row] if batch.box_labels is not None else None,
        batch.keypoints[row] if batch.keypoints is not None else None,
    )
