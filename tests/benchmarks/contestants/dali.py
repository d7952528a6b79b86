"""DALI on the CPU with two threads: its usual training pipeline, and the floor, region decoding alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
from lightwell.pipeline.formats.headers import read_header
from nvidia.dali import fn, pipeline_def, types

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.crops import FLIP_P, MEAN, RATIO, SCALE, STD, draw_crop, endless_batches

NUM_DRAWS = 16
"""Crops drawn beforehand for each picture; after so many epochs they come again."""


def plain(work: Work) -> Iterator[np.ndarray]:
    """Decode the random crop, resize linear without antialiasing (as OpenCV does), flip, normalise."""

    @pipeline_def(batch_size=work.batch_size, num_threads=NUM_WORKERS, device_id=None, seed=1)
    def pipeline() -> Any:
        encoded, _ = fn.readers.file(files=list(work.photos), shuffle_after_epoch=True, name="photos")
        images = fn.decoders.image_random_crop(
            encoded, random_area=list(SCALE), random_aspect_ratio=list(RATIO), num_attempts=10
        )
        images = fn.resize(
            images, size=(SIDE, SIDE), interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=False
        )
        mirror = fn.random.coin_flip(probability=FLIP_P)
        if work.output == "uint8":
            return fn.flip(images, horizontal=mirror)
        return fn.crop_mirror_normalize(
            images,
            mirror=mirror,
            mean=[255 * mean for mean in MEAN],
            std=[255 * std for std in STD],
            output_layout="CHW",
        )

    built = pipeline()
    built.build()
    while True:
        (images,) = built.run()
        yield np.asarray(images.as_tensor())


def floor(work: Work) -> Iterator[np.ndarray]:
    """Decode crops that were drawn beforehand, and do nothing with them; yields a pixel of each.

    Upsampling is the exact one of libjpeg-turbo and OpenCV.
    """
    headers = [read_header(path) for path in work.photos]
    chance = random.Random(0)
    crops = [
        cycle([draw_crop(header.width, header.height, chance) for _ in range(NUM_DRAWS)])
        for header in headers
    ]
    batches = endless_batches(len(work.photos), work.batch_size)

    def read() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        numbers = next(batches)
        drawn = [next(crops[number]) for number in numbers]
        return (
            [np.fromfile(work.photos[number], np.uint8) for number in numbers],
            [np.array([top, left], np.int32) for left, top, _, _ in drawn],
            [np.array([height, width], np.int32) for _, _, width, height in drawn],
        )

    @pipeline_def(batch_size=work.batch_size, num_threads=NUM_WORKERS, device_id=None)
    def pipeline() -> Any:
        encoded, start, shape = fn.external_source(
            source=read, num_outputs=3, dtype=[types.UINT8, types.INT32, types.INT32], ndim=[1, 1, 1]
        )
        return fn.decoders.image_slice(
            encoded, start=start, shape=shape, axes=[0, 1], jpeg_fancy_upsampling=True
        )

    built = pipeline()
    built.build()
    while True:
        (images,) = built.run()
        yield np.stack([np.asarray(images[i])[:1, :1] for i in range(len(images))])
