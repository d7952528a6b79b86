"""Cache stage: looks samples up before their files are read, and adds missing ones as they are processed.

Parameters are sampled in the same order whether an image is cached or not. With a cache, transforms before the cache
are applied once and stored; later ones are applied to the stored image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..cache.codec import CachedImage, decode_image, encode_image
from ..cache.key import CacheKeys, FileVersions
from ..cache.recipe import recipe_of
from ..cache.store import PixelCache
from ..compiler.program import Program
from ..index.index import Index
from ..load.decode.decoder import EncodedImage
from ..load.loader import EncodedSample, SampleLoader
from ..memory.estimates import RGB, estimate_sample_bytes
from ..monitor.watchdog import Watchdog
from ..transform.params import ParamSampler, SampledParams, TransformCall
from ..transform.size_bound import largest_pixels
from .apply import Failure, OutputSlot, TransformApplier, no_output_slot
from .cpu import CpuStage

CACHE_STEP = "cache"
"""Step of a ``Failure`` if a cached image cannot be decoded; its file is then read and decoded instead."""


@dataclass(frozen=True)
class CacheReader:
    """A cache with the keys of the samples of one index. Thread-safe."""

    cache: PixelCache
    keys: CacheKeys
    file_versions: FileVersions

    @classmethod
    def open(cls, program: Program, index: Index, buffer_bytes: int) -> CacheReader | None:
        """Open the cache of a program; None if its plan has none.

        Args:
            program: the compiled plan.
            index: of the samples.
            buffer_bytes: memory for images not yet written to disk; see ``memory.budget.split_budget``.

        Raises:
            OutputError: the cache folder cannot be created.
            PlanError: the folder belongs to, or may be written by, other users.
        """
        options = program.plan.cache
        if options is None:
            return None
        cache = PixelCache(
            options.dir,
            recipe_of(program),
            max_bytes=options.max_bytes,
            buffer_bytes=buffer_bytes,
            shared=options.shared,
        )
        return cls(cache, CacheKeys(index.table, cache.fingerprint), FileVersions(index.table))

    def contains(self, rows: np.ndarray) -> bool:
        """Return whether the lookup has all samples; their images may still turn out damaged."""
        return self.cache.contains(self.keys.for_rows(rows))

    def load(self, rows: np.ndarray, loader: SampleLoader) -> list[EncodedSample]:
        """Look samples up in the cache and read the files of the others, in order.

        A file that changed since it was indexed is read regardless of the cache and not added to it. Files are checked
        again after reading, so that no image is stored under the key of another version.
        """
        keys = self.keys.for_rows(rows)
        same = self.file_versions.are_current(rows)
        current = np.flatnonzero(same)
        found = dict(zip(current.tolist(), self.cache.get(keys[same]), strict=True))
        hits = {i: encoded for i, encoded in found.items() if encoded is not None}
        loaded: dict[int, EncodedSample] = dict(
            zip(hits, loader.load_for_cached(rows[list(hits)], list(hits.values())), strict=True)
        )
        missing = np.array([i for i in range(len(rows)) if i not in hits], np.int64)
        if len(missing):
            read = loader.load(rows[missing])
            may_keep = same[missing] & self.file_versions.are_current(rows[missing])
            for i, sample, may in zip(missing.tolist(), read, may_keep.tolist(), strict=True):
                loaded[i] = replace(sample, cache_key=keys[i] if may else None)
        return [loaded[i] for i in range(len(rows))]


class CacheStage:
    """Produces images from the cache or from files. One thread at a time.

    Args:
        param_sampler: provides the transforms by index.
        cpu_stage: applies the transforms before the cache.
        cache: the cache.
        num_transforms: number of leading transforms before the cache.
        watchdog: tracks each sample.
    """

    def __init__(
        self,
        param_sampler: ParamSampler,
        cpu_stage: CpuStage,
        cache: PixelCache,
        num_transforms: int,
        watchdog: Watchdog,
    ) -> None:
        self._applier = TransformApplier(param_sampler, watchdog)
        self._watchdog = watchdog
        self._cpu_stage = cpu_stage
        self._cache = cache
        self._quality = cache.recipe.quality
        self._num_transforms = num_transforms

    def run(
        self,
        samples: Sequence[EncodedSample],
        sampled: Sequence[SampledParams],
        output_slots: Sequence[OutputSlot],
    ) -> list[np.ndarray | Failure]:
        """Return the images after all sampled transforms; valid until the next call."""
        missing = [
            (sample, one) for sample, one in zip(samples, sampled, strict=True) if sample.cached_image is None
        ]
        made = iter(self._build_missing(missing)) if missing else iter(())
        images = [
            next(made) if one.cached_image is None else self._decode_cached(one, one.cached_image)
            for one in samples
        ]
        return self._applier.apply_all(
            [str(sample.row["key"]) for sample in samples],
            images,
            [self._calls_after_cache(one) for one in sampled],
            [output_slot(one.size) for one, output_slot in zip(sampled, output_slots, strict=True)],
        )

    def _decode_cached(self, sample: EncodedSample, cached_image: CachedImage) -> np.ndarray | Failure:
        if self._quality is None:  # raw pixels: no decoding to time
            image = decode_image(cached_image, None)
        else:
            with self._watchdog.track("decode", str(sample.row["key"])):
                image = decode_image(cached_image, self._quality)
        if image is not None:
            return image
        self._cache.discard(cached_image)
        return Failure(CACHE_STEP, "the cached image cannot be decoded", ("opencv",))

    def _build_missing(
        self, missing: Sequence[tuple[EncodedSample, SampledParams]]
    ) -> list[np.ndarray | Failure]:
        """Apply the transforms before the cache and store the images.

        Lossy images are decoded again at once, so that the first epoch yields the same pixels as later ones.
        """
        files = [sample.file for sample, _ in missing if sample.file is not None]
        made = self._cpu_stage.run(
            files, [self._calls_before_cache(one) for _, one in missing], [no_output_slot] * len(missing)
        )
        to_cache: list[tuple[np.ndarray, CachedImage]] = []
        for number, ((sample, _), image) in enumerate(zip(missing, made, strict=True)):
            if isinstance(image, Failure):
                continue
            if self._quality is None and sample.cache_key is None:
                continue
            encoded = encode_image(image, self._quality)
            if encoded is None:
                continue
            decoded = decode_image(encoded, self._quality)
            assert decoded is not None, "OpenCV decodes what it has encoded"
            made[number] = decoded
            if sample.cache_key is not None:
                to_cache.append((sample.cache_key, encoded))
        self._cache.put(to_cache)
        return made

    def _calls_before_cache(self, sampled: SampledParams) -> SampledParams:
        """Return the parameters with only the transforms before the cache."""
        before = tuple(one for one in sampled.calls if one.transform_index < self._num_transforms)
        remaining = sampled.calls[len(before) :]
        return replace(sampled, calls=before, size=remaining[0].size if remaining else sampled.size)

    def _calls_after_cache(self, sampled: SampledParams) -> Sequence[TransformCall]:
        return [one for one in sampled.calls if one.transform_index >= self._num_transforms]

    def estimate_sample_bytes(self, file: EncodedImage, sampled: SampledParams) -> int:
        """Estimate the bytes of a sample to be cached: the image before the cache, its copy, and the final image."""
        beginning = self._calls_before_cache(sampled)
        made = estimate_sample_bytes(file, self._cpu_stage.plan(file, beginning), beginning)
        return made + RGB * (prod(beginning.size) + largest_pixels(sampled))
