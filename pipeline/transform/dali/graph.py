"""DALI graph of lowered transforms, on the CPU or a GPU."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...geometry import FIRST_TRANSPOSED, FLIPPED_X, FLIPPED_Y, Region
from ..params import TransformCall
from .lowering import Argument, Device, Lowering, Node, as_array

FLIPPED = FLIPPED_X | FLIPPED_Y
Source = Literal["encoded", "pixels"]
_OPERATOR = re.compile(r"^_+(\w+?)_\d+$")
"""Extracts the operator name from DALI's node name."""
_defining = threading.Lock()


@dataclass(frozen=True, slots=True)
class GraphTransform:
    """A leaf transform of the policy with its lowering."""

    number: int
    transform: Any
    lowering: Lowering


@dataclass(frozen=True, slots=True)
class Placement:
    """An operator of a graph and its device."""

    operator: str
    device: str


class LoweredGraph:
    """Decodes a batch and applies the lowered transforms sampled for each image.

    It is defined on first use. Only running a graph on ``gpu`` needs a GPU, defining it does not. One thread at a time;
    call ``close`` when done.
    """

    def __init__(
        self,
        transforms: Sequence[GraphTransform],
        *,
        source: Source,
        device: Device,
        max_batch_size: int,
        num_threads: int = 1,
    ) -> None:
        self._transforms = tuple(transforms)
        self._source = source
        self.device = device
        self.max_batch_size = max_batch_size
        self._num_threads = num_threads
        self._pipeline: Any = None
        self._built = False
        self._inputs: frozenset[str] = frozenset()

    def placements(self) -> list[Placement]:
        """Return the operators and their devices, argument arithmetic included."""
        if not self._built:
            self._definition()._build_graph()
        return [
            Placement(_OPERATOR.sub(r"\1", op.name), op.spec.OutputDevice(0))
            for op in self._pipeline._ops
            if not _is_input(op)
        ]

    def run(
        self,
        images: Sequence[np.ndarray],
        calls: Sequence[Sequence[TransformCall]],
        regions: Sequence[Region] | None = None,
        orientations: Sequence[int] | None = None,
    ) -> Any:
        """Run up to ``max_batch_size`` samples; return DALI's list of uint8 HWC tensors, on the device.

        Args:
            images: encoded bytes as uint8 (n,), or RGB pixels as uint8 HWC, as ``source`` says.
            calls: sampled transforms of each image, at most one per transform of the graph, in its order.
            regions: for encoded images, the regions to decode, in stored coordinates.
            orientations: for encoded images, their EXIF orientations, which are applied before the transforms.

        Raises:
            RuntimeError: DALI could not decode or transform one of the images; it does not report which.
        """
        if not self._built:
            self._definition().build()
            self._inputs = frozenset(op.name for op in self._pipeline._ops if _is_input(op))
            self._built = True
        self._pipeline.feed_input("images", list(images))
        if self._source == "encoded":
            assert regions is not None, "encoded images come with their regions"
            assert orientations is not None, "encoded images come with their orientations"
            self._pipeline.feed_input("anchor", [np.array([r.y0, r.x0], np.int32) for r in regions])
            self._pipeline.feed_input("shape", [np.array(r.size, np.int32) for r in regions])
            self._pipeline.feed_input("quarter", [np.bool_(o >= FIRST_TRANSPOSED) for o in orientations])
            self._pipeline.feed_input("flipped", [np.bool_(o in FLIPPED) for o in orientations])
            self._pipeline.feed_input("flip_x", [np.int32(o in FLIPPED_X) for o in orientations])
            self._pipeline.feed_input("flip_y", [np.int32(o in FLIPPED_Y) for o in orientations])
        taken = [{call.transform_index: call for call in sampled} for sampled in calls]
        for graph_transform in self._transforms:
            self._feed_transform(graph_transform, taken)
        (outputs,) = self._pipeline.run()
        return outputs

    def _feed_transform(
        self, graph_transform: GraphTransform, taken: Sequence[Mapping[int, TransformCall]]
    ) -> None:
        flags = [np.bool_(graph_transform.number in sampled) for sampled in taken]
        self._pipeline.feed_input(f"flag{graph_transform.number}", flags)
        lowering = graph_transform.lowering
        rows = [
            lowering.arguments_of(
                graph_transform.transform,
                sampled[graph_transform.number].params,
                sampled[graph_transform.number].size,
            )
            if graph_transform.number in sampled
            else None
            for sampled in taken
        ]
        for i, argument in enumerate(lowering.arguments):
            if f"{argument.name}{graph_transform.number}" not in self._inputs:
                continue  # DALI prunes unused inputs; some options leave an argument out
            values = [_unused(argument) if row is None else as_array(row[i], argument) for row in rows]
            self._pipeline.feed_input(f"{argument.name}{graph_transform.number}", values)

    def _definition(self) -> Any:
        with _defining:
            self._pipeline = self._pipeline or _define(
                self._transforms, self._source, self.device, self.max_batch_size, self._num_threads
            )
        return self._pipeline

    def close(self) -> None:
        """Free the pipeline and its threads; the next run defines it again."""
        self._pipeline, self._built = None, False


def _is_input(operator: Any) -> bool:
    return type(operator._op).__name__ == "ExternalSource"


def _unused(argument: Argument) -> np.ndarray:
    return np.zeros((1,) * argument.ndim, argument.dtype)


def _define(
    transforms: tuple[GraphTransform, ...],
    source: Source,
    device: Device,
    max_batch_size: int,
    num_threads: int,
) -> Any:
    from nvidia.dali import fn, pipeline_def, types

    kinds = {
        "uint8": types.UINT8,
        "int16": types.INT16,
        "int32": types.INT32,
        "float32": types.FLOAT,
        "bool": types.BOOL,
    }

    def inputs_of(graph_transform: GraphTransform) -> tuple[Node, ...]:
        return tuple(
            fn.external_source(name=f"{a.name}{graph_transform.number}", dtype=kinds[a.dtype], ndim=a.ndim)
            for a in graph_transform.lowering.arguments
        )

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=max_batch_size,
        num_threads=num_threads,
        device_id=0 if device == "gpu" else None,
        prefetch_queue_depth=1,
        enable_conditionals=True,
    )
    def lowered() -> Any:
        if source == "encoded":
            encoded = fn.external_source(name="images", dtype=types.UINT8, ndim=1)
            anchor = fn.external_source(name="anchor", dtype=types.INT32, ndim=1)
            shape = fn.external_source(name="shape", dtype=types.INT32, ndim=1)
            images = fn.decoders.image_slice(
                encoded,
                anchor,
                shape,
                axes=(0, 1),
                device="mixed" if device == "gpu" else "cpu",
                output_type=types.RGB,
                adjust_orientation=False,  # taken from the index
                jpeg_fancy_upsampling=True,  # as libjpeg-turbo and OpenCV do: bit-identical
            )
            quarter = fn.external_source(name="quarter", dtype=types.BOOL, ndim=0)
            flipped = fn.external_source(name="flipped", dtype=types.BOOL, ndim=0)
            flip_x = fn.external_source(name="flip_x", dtype=types.INT32, ndim=0)
            flip_y = fn.external_source(name="flip_y", dtype=types.INT32, ndim=0)
            if quarter:
                images = fn.transpose(images, perm=[1, 0, 2], transpose_layout=False)
            if flipped:
                images = fn.flip(images, horizontal=flip_x, vertical=flip_y)
        else:
            images = fn.external_source(name="images", dtype=types.UINT8, ndim=3, layout="HWC")
            if device == "gpu":
                images = images.gpu()
        for graph_transform in transforms:
            flag = fn.external_source(name=f"flag{graph_transform.number}", dtype=types.BOOL, ndim=0)
            nodes = inputs_of(graph_transform)
            if flag:  # a DALI conditional: runs for the samples whose flag is set
                images = graph_transform.lowering.emit(graph_transform.transform, images, nodes, device)
        return images

    return lowered()
