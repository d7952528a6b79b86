"""The laws that the local engine holds: same batches always, one bad image costs one image, counts add up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from lightwell.pipeline.errors import PlanError, RunError, SourceError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.load.decode.opencv import decode_opencv
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_folder, make_picture, write_picture

Make = Callable[..., LocalEngine]
POLICY = [
    A.RandomResizedCrop((48, 48)),
    A.HorizontalFlip(),
    A.GaussNoise(p=0.5),
    A.RandomBrightnessContrast(),
]
TRAINING = View(shuffle=True, augment=True, num_epochs=2)


@pytest.fixture(params=["opencv", "dali"])
def make_engine(request: pytest.FixtureRequest) -> Make:
    """An engine with either way of making pictures: the laws hold for both."""
    return partial(LocalEngine, backend=request.param)


def hashes(plan: Plan, view: View, engine: LocalEngine) -> list[str]:
    with engine.feed(plan, view) as feed:
        return [
            hashlib.sha256(b.images.numpy().tobytes() + repr((b.keys, b.labels)).encode()).hexdigest()
            for b in feed
        ]


def plan_for(index_path: Path, **changes: object) -> Plan:
    return Plan.model_validate(
        {"index": index_path, "augment": POLICY, "batch": {"size": 5}, "seed": 3, **changes}
    )


def test_batches_do_not_depend_on_threads_or_prefetch(make_engine: Make, index_path: Path) -> None:
    plan = plan_for(index_path)
    reference = hashes(plan, TRAINING, make_engine(num_threads=1, prefetch=1))
    assert len(reference) == 10
    for threads, prefetch in ((2, 1), (3, 8)):
        assert hashes(plan, TRAINING, make_engine(num_threads=threads, prefetch=prefetch)) == reference


def test_another_seed_and_another_epoch_give_other_batches(make_engine: Make, index_path: Path) -> None:
    reference = hashes(plan_for(index_path), TRAINING, make_engine())
    assert not set(reference) & set(hashes(plan_for(index_path, seed=4), TRAINING, make_engine()))
    assert not set(reference[:5]) & set(reference[5:])


def test_a_view_that_starts_at_epoch_one_continues_the_longer_view(
    make_engine: Make, index_path: Path
) -> None:
    plan = plan_for(index_path)
    later = View(shuffle=True, augment=True, first_epoch=1)
    assert hashes(plan, later, make_engine()) == hashes(plan, TRAINING, make_engine())[5:]


def test_augmentation_of_a_sample_does_not_depend_on_the_others(
    make_engine: Make, index_path: Path, tmp_path: Path
) -> None:
    plan = plan_for(index_path, batch={"size": 1})
    view = View(augment=True)
    with make_engine().feed(plan, view) as feed:
        whole = {batch.keys[0]: batch.images for batch in feed}
    key = sorted(whole)[7]
    with make_engine().feed(plan, View(augment=True, keys=(key,))) as feed:
        (alone,) = feed
    assert torch.equal(alone.images, whole[key])


def test_batches_equal_albumentations_on_the_full_decode(make_engine: Make, index_path: Path) -> None:
    plan = Plan.model_validate(
        {"index": index_path, "preprocess": [A.SmallestMaxSize(64), A.CenterCrop(56, 56)]}
    )
    rows = {row["key"]: row for row in Index.load(index_path).table.to_pylist()}
    reference = A.Compose([A.SmallestMaxSize(64), A.CenterCrop(56, 56)])
    with make_engine().feed(plan, View()) as feed:
        (batch,) = feed
    for key, image in zip(batch.keys, batch.images.numpy(), strict=True):
        expected = reference(image=decode_opencv(Path(rows[key]["uri"]).read_bytes()))["image"]
        most = 0 if make_engine().backend == "opencv" else 1
        assert np.abs(image.astype(int) - expected).max() <= most


def test_normalisation_equals_albumentations(make_engine: Make, index_path: Path) -> None:
    normalize = A.Normalize(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    plain = Plan.model_validate({"index": index_path, "preprocess": [A.Resize(32, 32)]})
    finished = Plan.model_validate({"index": index_path, "preprocess": [A.Resize(32, 32), normalize]})
    with make_engine().feed(plain, View()) as feed:
        (bytes_batch,) = feed
    with make_engine().feed(finished, View()) as feed:
        (float_batch,) = feed
    assert float_batch.images.dtype == torch.float32
    for pixels, found in zip(bytes_batch.images.numpy(), float_batch.images.numpy(), strict=True):
        np.testing.assert_allclose(found, normalize(image=pixels)["image"].transpose(2, 0, 1), atol=2e-6)


def damage(index_path: Path, number: int, content: bytes | None) -> str:
    row = Index.load(index_path).table.slice(number, 1).to_pylist()[0]
    path = Path(row["uri"])
    path.unlink() if content is None else path.write_bytes(content)
    return str(row["key"])


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xd8 no picture", "half"], ids=["vanished", "empty", "garbage", "half"]
)
def test_one_bad_file_costs_one_image(
    make_engine: Make, index_path: Path, content: bytes | str | None
) -> None:
    plan = Plan.model_validate({"index": index_path, "preprocess": [A.Resize(32, 32)], "batch": {"size": 8}})
    with make_engine().feed(plan, View()) as feed:
        before = list(feed)
    row = Index.load(index_path).table.slice(5, 1).to_pylist()[0]
    data = Path(row["uri"]).read_bytes()
    bad = damage(index_path, 5, data[: len(data) // 2] if isinstance(content, str) else content)
    with make_engine().feed(plan, View()) as feed:
        after = list(feed)
        counts, quarantine = feed.counts, feed.quarantine
    assert [len(batch) for batch in after] == [8, 8, 8]
    assert counts == {"read": 24, "used": 23, "replaced": 1, "skipped": 0}
    assert [entry["key"] for entry in quarantine] == [bad]
    assert quarantine[0]["replaced_by"] == after[0].keys[5]
    assert quarantine[0]["reason"]
    assert after[0].replaced.tolist() == [False] * 5 + [True] + [False] * 2
    assert torch.equal(after[1].images, before[1].images)
    good = [i for i in range(8) if i != 5]
    assert torch.equal(after[0].images[good], before[0].images[good])


def test_a_transform_that_fails_on_one_image_costs_that_image(make_engine: Make, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=6)
    write_picture(folder / "cat" / "tiny.png", make_picture(1, 8, 8))
    path = tmp_path / "index.parquet"
    build_index(folder, fractions={"train": 1.0}).save(path)
    plan = Plan.model_validate({"index": path, "preprocess": [A.CenterCrop(64, 64)]})
    with make_engine().feed(plan, View()) as feed:
        (batch,) = feed
        (entry,) = feed.quarantine
    assert len(batch) == 7
    assert (entry["key"], entry["step"]) == ("cat/tiny.png", "policy")


def test_all_files_broken_fails_with_the_reason(make_engine: Make, index_path: Path) -> None:
    for number in range(24):
        damage(index_path, number, b"nothing")
    plan = Plan.model_validate({"index": index_path, "preprocess": [A.Resize(32, 32)]})
    with pytest.raises(RunError, match="none of its replacements"), make_engine().feed(plan, View()) as feed:
        list(feed)


def test_images_of_different_sizes_fail_with_the_cure(make_engine: Make, index_path: Path) -> None:
    plan = Plan.model_validate({"index": index_path})
    with (
        pytest.raises(PlanError, match="end preprocess with a Resize or a crop"),
        make_engine().feed(plan, View()) as feed,
    ):
        list(feed)


def test_a_missing_split_lists_those_there_are(make_engine: Make, index_path: Path) -> None:
    with pytest.raises(SourceError, match="train"):
        make_engine().feed(Plan.model_validate({"index": index_path}), View(split="validation"))


def test_leaving_a_feed_early_stops_its_threads(make_engine: Make, index_path: Path) -> None:
    import threading

    plan = plan_for(index_path, batch={"size": 2})
    before = set(threading.enumerate())
    with make_engine(prefetch=1).feed(plan, View(augment=True, num_epochs=50)) as feed:
        iterator = iter(feed)
        next(iterator)
        iterator.close()  # type: ignore[attr-defined]
    assert not {
        thread for thread in set(threading.enumerate()) - before if thread.name.startswith("lightwell")
    }


def test_masks_and_boxes_follow_the_picture(make_engine: Make, tmp_path: Path) -> None:
    picture = make_picture(0, 60, 80)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 20:50] = 3
    write_picture(tmp_path / "a.png", picture)
    write_picture(tmp_path / "a_mask.png", np.repeat(mask[..., None], 3, 2))
    from PIL import Image

    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    (tmp_path / "table.csv").write_text('path,label,mask,boxes\na.png,cell,a_mask.png,"20,10,50,30"\n')
    path = tmp_path / "index.parquet"
    build_index(tmp_path / "table.csv").save(path)
    plan = Plan.model_validate({"index": path, "preprocess": [A.HorizontalFlip(p=1.0)]})
    with make_engine().feed(plan, View()) as feed:
        (batch,) = feed
    assert batch.masks is not None
    assert batch.boxes is not None
    assert np.array_equal(batch.masks[0].numpy(), mask[:, ::-1])
    np.testing.assert_allclose(batch.boxes[0], [[30, 10, 60, 30]], atol=1e-3)
