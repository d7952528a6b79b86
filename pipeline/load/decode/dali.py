"""Batched decoding and transforming with NVIDIA DALI; bad files are found by halving the batch."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...geometry import Region
from ...monitor.watchdog import Watchdog
from ...transform.dali.graph import GraphTransform, LoweredGraph
from ...transform.dali.lowering import Device
from ...transform.params import TransformCall

DALI_MODES = {"L", "RGB"}
"""Pillow modes that DALI and OpenCV convert to RGB by the rule in ``pillow``; others are decoded by Pillow."""
DALI_FORMATS = {"jpeg", "png", "webp"}
"""Formats for which DALI and OpenCV are bit-identical."""

_SAMPLE = re.compile(r"^Failed to decode sample #\d+ ?:\s*")


@dataclass(frozen=True, slots=True)
class DaliInput:
    """An encoded file for DALI."""

    key: str
    """Key of the sample, for messages."""
    data: bytes
    region: Region
    """The region to decode, in stored coordinates."""
    orientation: int = 1
    """EXIF orientation to apply."""
    calls: tuple[TransformCall, ...] = ()
    """Its sampled transforms, at most one per transform of the graph, in its order."""


@dataclass(frozen=True, slots=True)
class DaliFailure:
    """Reason for which DALI did not produce an image."""

    reason: str


class DaliDecoder:
    """Decodes regions of files to RGB and applies lowered transforms. One thread at a time; call ``close``.

    The graph is built on first use.

    Args:
        transforms: transforms of the graph; without any it only decodes.
        device: of the graph.
        max_batch_size: most files per run.
        num_threads: of DALI, for decoding and for CPU operators.
        watchdog: tracks each run.
    """

    def __init__(
        self,
        transforms: Sequence[GraphTransform] = (),
        *,
        max_batch_size: int,
        num_threads: int = 1,
        device: Device = "cpu",
        watchdog: Watchdog | None = None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._watchdog = watchdog or Watchdog(None)
        self._graph = LoweredGraph(
            transforms,
            source="encoded",
            device=device,
            max_batch_size=max_batch_size,
            num_threads=num_threads,
        )

    def decode(self, files: Sequence[DaliInput], *, on_host: bool = True) -> list[Any]:
        """Decode and transform files to uint8 HWC RGB, in order.

        DALI fails a whole batch for one bad file without reporting which. Then both halves are processed again, down
        to the bad files: 4 bad files in 64 cost about 20 additional runs.

        Args:
            files: the files.
            on_host: whether to return NumPy arrays from a GPU as well; otherwise torch tensors there.

        Returns:
            For each file an array that is valid until the next call, or a ``DaliFailure``.
        """
        if not files:
            return []
        if len(files) <= self._max_batch_size:
            try:
                return self._run(files, on_host=on_host)
            except RuntimeError as error:
                if len(files) == 1:
                    return [DaliFailure(_error_message(error))]
        half = len(files) // 2
        first = [owned_copy(one) for one in self.decode(files[:half], on_host=on_host)]
        return [*first, *self.decode(files[half:], on_host=on_host)]

    def _run(self, files: Sequence[DaliInput], *, on_host: bool) -> list[Any]:
        """Run the graph; after a timeout all files fail, so that other decoders find the slow one."""
        started = time.perf_counter()
        with self._watchdog.track("decode", files[0].key, len(files)):
            outputs = self._graph.run(
                [np.frombuffer(file.data, np.uint8) for file in files],
                [file.calls for file in files],
                [file.region for file in files],
                [file.orientation for file in files],
            )
        if reason := self._watchdog.timeout_reason(time.perf_counter() - started):
            return [DaliFailure(f"{len(files)} files together {reason}")] * len(files)
        if on_host or not type(outputs).__name__.endswith("GPU"):
            host = outputs.as_cpu()
            return [host.at(i) for i in range(len(files))]
        from torch.utils.dlpack import from_dlpack

        return [from_dlpack(outputs[i]) for i in range(len(files))]

    def close(self) -> None:
        """Free the graph and its threads."""
        self._graph.close()


def owned_copy(image: Any) -> Any:
    """Copy an image whose memory the next run of a graph would reuse; failures are returned as they are."""
    if isinstance(image, np.ndarray):
        return image.copy()
    return image if isinstance(image, DaliFailure) else image.clone()


def _error_message(error: RuntimeError) -> str:
    """Extract the relevant line of DALI's long message, which has none if no decoder accepts a file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[lines.index("encountered:") + 1] if "encountered:" in lines[:-1] else lines[-1]
    message = _SAMPLE.sub("", message.removeprefix("Critical error in pipeline:").strip())
    return message or "not an image that DALI can decode"
