"""A cache changes no batch: not while it fills, not when it is warm, whatever happened to files, options or shards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.dataset.index import Index
from lightwell.pipeline.dataset.indexing import build_index
from lightwell.pipeline.engine.feed import LocalEngine
from lightwell.pipeline.errors import OutputError, PlanError
from lightwell.pipeline.plan import Plan
from lightwell.pipeline.view import View
from pictures import make_picture, write_picture

TRAINING = View(shuffle=True, augment=True, num_epochs=2)
PREPROCESS = [A.SmallestMaxSize(64)]
AUGMENT = [A.RandomResizedCrop((48, 48)), A.HorizontalFlip(), A.GaussNoise(p=0.5), A.CoarseDropout(p=0.5)]


def plan_for(index_path: Path, **changes: Any) -> Plan:
    plan = {
        "index": index_path,
        "preprocess": PREPROCESS,
        "augment": AUGMENT,
        "batch": {"size": 5},
        "seed": 3,
    }
    return Plan.model_validate({**plan, **changes})


def run(plan: Plan, view: View = TRAINING, **engine: Any) -> tuple[list[str], dict[str, int]]:
    """Hash every batch with all that it holds; return the cache's counts too."""
    with LocalEngine(**{"num_threads": 2, **engine}).feed(plan, view) as feed:
        hashes = [
            hashlib.sha256(
                batch.images.numpy().tobytes()
                + repr((batch.keys, batch.labels.tolist(), batch.replaced.tolist())).encode()
                + (b"" if batch.masks is None else batch.masks.numpy().tobytes())
                + (b"" if batch.boxes is None else np.concatenate(batch.boxes).tobytes())
            ).hexdigest()
            for batch in feed
        ]
        return hashes, feed.cache_counts


POLICIES: dict[str, dict[str, Any]] = {
    "resize first": {},
    "normalised": {"preprocess": [*PREPROCESS, A.Normalize()], "augment": AUGMENT[:2]},
    "nothing before": {"preprocess": [], "decode": "exact"},
    "crop before": {"preprocess": [A.CenterCrop(80, 90)], "decode": "exact"},
    "writes into what it is given": {
        "augment": [A.CoarseDropout(p=1.0), A.CenterCrop(48, 48), A.PixelDropout()]
    },
    "decides by pixels": {
        "augment": [A.CenterCrop(48, 48), A.Equalize(mask=lambda image: image[..., 0] > 9)]
    },
    "own class behind": {"preprocess": [A.Resize(48, 48), "lightwell.pipeline.policy.color:ToHSV"]},
    "several": {"augment": [A.OneOf([A.RandomCrop(48, 48), A.Resize(48, 48)], p=1.0), A.VerticalFlip()]},
    "whole": {"preprocess": [A.SmallestMaxSize(64), A.CenterCrop(48, 48)], "augment": []},
}


@pytest.mark.parametrize("changes", POLICIES.values(), ids=POLICIES)
def test_batches_are_the_same_without_a_cache_while_it_fills_and_when_it_is_warm(
    changes: dict[str, Any], index_path: Path, tmp_path: Path
) -> None:
    bare, none = run(plan_for(index_path, **changes))
    cached = plan_for(index_path, cache=tmp_path / "cache", **changes)
    filling, first = run(cached)
    warm, second = run(cached, num_threads=1, prefetch=1)
    assert none == {}
    assert bare == filling == warm
    assert first == {"hits": 24, "misses": 24, "kept": 24, "damaged": 0}
    assert second == {"hits": 48, "misses": 0, "kept": 0, "damaged": 0}
