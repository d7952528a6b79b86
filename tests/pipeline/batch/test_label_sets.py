"""Sets of labels reach the batch, mixed or replaced, and travel to other processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.batch_builder import BatchResult
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_batch
from lightwell.workers.ray.blocks import from_block, to_block
from tasks import multilabel_set


def test_label_sets_are_rows_of_zeros_and_ones_and_an_unlabelled_image_is_minus_one(tmp_path: Path) -> None:
    plan = Plan(index=multilabel_set(tmp_path, num_train=8, num_other=1), batch={"size": 8})
    with LocalEngine(num_threads=1).feed(plan, View(split="train")) as feed:
        (batch,) = list(feed)
    assert batch.label_sets is not None
    assert batch.label_sets.dtype == torch.int8
    found = dict(zip(batch.keys, batch.label_sets.tolist(), strict=True))
    # number + 1 in binary, lowest bit first: blue, green, red
    assert found["train-0.png"] == [1, 0, 0]
    assert found["train-4.png"] == [1, 0, 1]
    assert found["train-3.png"] == [-1, -1, -1]
    assert batch.labels.tolist() == [-1] * 8


def test_a_replaced_image_has_the_labels_of_its_replacement_and_a_cache_changes_none(tmp_path: Path) -> None:
    index = multilabel_set(tmp_path, num_train=8, num_other=1)
    damaged = tmp_path / "train-6.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    plan = Plan(index=index, batch={"size": 8}, cache=tmp_path / "cache", errors={"max_bad_share": 0.5})
    digests = []
    for _ in range(2):
        with LocalEngine(num_threads=1).feed(plan, View(split="train")) as feed:
            (batch,) = list(feed)
        (row,) = batch.replaced.nonzero()[0]
        by_key = [number for number, key in enumerate(batch.keys) if key == batch.keys[row]]
        assert len({tuple(batch.label_sets[number].tolist()) for number in by_key}) == 1
        assert len(by_key) == 2
        digests.append(digest_batch(batch))
    assert digests[0] == digests[1]


def test_mixed_images_have_the_labels_of_both_and_blocks_keep_them(tmp_path: Path) -> None:
    index = multilabel_set(tmp_path, num_train=8, num_other=1)
    plan = Plan(index=index, batch={"size": 4}, mix={"kind": "CutMix"})
    with LocalEngine(num_threads=1).feed(plan, View(split="train", augment=True)) as feed:
        batch = next(iter(feed))
    assert torch.equal(batch.mixed_label_sets, batch.label_sets.roll(1, dims=0))
    again, _ = from_block(to_block(BatchResult(0, batch)))
    assert digest_batch(again.batch) == digest_batch(batch)
    changed = replace(batch, mixed_label_sets=batch.label_sets)
    assert digest_batch(changed) != digest_batch(batch)
    assert torch.equal(batch.slice_rows(1, 3).label_sets, batch.label_sets[1:3])
