"""The explanation of one picture, in Python and in notebooks."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...pipeline.atomic_io import atomic_write
from ...pipeline.compiler.program import Program
from ...pipeline.errors import ModelError, SampleError, did_you_mean
from ...pipeline.plan.plan import Plan
from .cam.registry import DEFAULT
from .photo_maps import PhotoMap, draw_on_photo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from ..inference.predictor import Predictor
    from ..inference.reading import Image


@dataclass(frozen=True, slots=True)
class Explanation:
    """A class activation map of one picture; shows itself in a notebook."""

    label: str
    """The explained class."""
    probability: float
    """Of that class, after the model's calibration."""
    map: NDArray[np.float32]
    """Signed map at the size of the target layer, (h, w): negative values are evidence against the class."""
    target_layer: str
    photo_map: PhotoMap = field(repr=False)
    """The original picture with the map at its size."""

    def overlay(self) -> NDArray[np.uint8]:
        """Draw the evidence for the class over the picture: uint8 RGB (H, W, 3), at most 1,024 pixels long."""
        return self.photo_map.overlay()

    def save(self, path: Path | str) -> None:
        """Write the overlay as PNG.

        Raises:
            OutputError: the file cannot be written.
        """
        with atomic_write(Path(path)) as file:
            file.write(self._repr_png_())

    def _repr_png_(self) -> bytes:
        from PIL import Image as Pictures

        buffer = io.BytesIO()
        Pictures.fromarray(self.overlay()).save(buffer, "PNG")
        return buffer.getvalue()


def explain_image(
    model: Predictor | Path | str,
    image: Image,
    target: str | None = None,
    *,
    method: str = DEFAULT,
    target_layer: str | None = None,
) -> Explanation:
    """Explain a classifier's prediction of one picture by a class activation map.

    Args:
        model: a checkpoint of ``lightwell train``, or what ``lightwell.load`` returned for it, which is faster for several
            pictures.
        image: a file, or uint8 RGB pixels (H, W, 3).
        target: name of the class to explain; None for the predicted one.
        method: one of ``cam.registry.METHODS``, or ``module:function``.
        target_layer: dotted name of the layer; None for the last one with a map.

    Raises:
        ModelError: the model is no classifier, or has no such class, layer or map.
        PlanError: no such method.
        SourceError: there is no such file, or it is no picture.
        SampleError: the picture cannot be read.
    """
    import torch

    from ..inference.predictor import NO_INDEX, Predictor, load
    from ..zoo.forward import model_inputs
    from .cam.explainer import class_activation_maps, predicted
    from .target_layer import find_target_layer

    predictor = model if isinstance(model, Predictor) else load(model)
    if not isinstance(predictor, Predictor):
        raise ModelError(
            "model: expected a classifier, got a segmentation model; use lightwell.grad_cam with regions"
        )
    photo = _read(Program.compile(Plan(index=NO_INDEX)), image)[0].numpy()
    device = next(predictor.model.parameters()).device
    images = model_inputs(_read(predictor.program, image), device)
    layer = target_layer or find_target_layer(predictor.model, images)
    chosen = predicted if target is None else torch.tensor([_class_number(predictor.classes, target)])
    with class_activation_maps(predictor.model, layer, method) as cam:
        result = cam(images, [chosen])
    number = int(result.targets[0][0])
    probabilities = predictor.outputs.probabilities(result.logits.float().cpu().numpy())
    small = result.pre_relu[0][0].float().cpu().numpy()
    return Explanation(
        predictor.classes[number],
        float(probabilities[0, number]),
        small,
        layer,
        draw_on_photo(predictor.program, photo, small),
    )


def _read(program: Program, image: Image) -> torch.Tensor:
    """Return a picture as a plan's evaluation makes it, a batch of one.

    Raises:
        SampleError: it cannot be read or transformed.
    """
    from ..inference.reading import ImageReader

    errors = [""]
    for _, _, _, tensor in ImageReader(program, 1).read([image], errors):
        return tensor
    name = "image" if isinstance(image, np.ndarray) else str(image)
    raise SampleError(name, "explain", errors[0])


def _class_number(classes: Sequence[str], name: str) -> int:
    if name not in classes:
        raise ModelError(
            f"target: expected a class of the model, got {name!r}; {did_you_mean(name, classes) or 'see the classes'}"
        )
    return list(classes).index(name)
