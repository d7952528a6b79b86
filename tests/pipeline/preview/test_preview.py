"""A preview shows the pixels that feeds yield, with what was done to each, and no sample makes it fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import lightwell
import numpy as np
import pytest
import torch
from annotated import GREEN, RED, drawn_scene, write_index
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.errors import PlanError, RequestError, SourceError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.preview.pictures import Picture
from lightwell.pipeline.preview.preview import Preview, preview
from lightwell.pipeline.preview.sample_choice import choose_rows
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_folder, write_picture

EPOCHS = 3
RESIZE = A.Resize(64, 80)
POLICIES: dict[str, list[Any]] = {
    "photometric only": [RESIZE, A.ColorJitter(p=0.7), A.GaussNoise(p=0.5), A.CLAHE(p=0.5)],
    "geometric": [A.RandomResizedCrop((64, 80)), A.HorizontalFlip(), A.Affine(rotate=(-30, 30), p=0.7)],
    "a choice": [RESIZE, A.OneOf([A.GaussianBlur(p=1), A.Solarize(p=1), A.ToGray(p=1)], p=0.8)],
    "several in any order": [
        RESIZE,
        A.SomeOf([A.HorizontalFlip(p=1), A.InvertImg(p=1), A.Blur(p=1)], n=2, p=0.8),
        A.RandomOrder([A.VerticalFlip(p=0.5), A.RandomGamma(p=1)], n=2, p=1),
    ],
    "drawn from pixels": [RESIZE, A.HEStain(p=0.6), A.HorizontalFlip()],
    "reduced by the decoder": [A.SmallestMaxSize(48), A.RandomCrop(40, 40)],
}


def feed_images(
    plan: Plan, view: View, backend: Any = None
) -> tuple[dict[tuple[int, str], np.ndarray], list[Batch]]:
    """The images of a feed by epoch and key."""
    with LocalEngine(num_threads=2, backend=backend).feed(plan, view) as feed:
        batches = list(feed)
    images = {
        (batch.epoch, key): image.numpy()
        for batch in batches
        for key, image in zip(batch.keys, batch.images, strict=True)
    }
    return images, batches


def shown(found: Preview, kind: str = "training") -> dict[tuple[int, str], Picture]:
    """The pictures of a preview by epoch and key."""
    return {
        (version.epoch, sample.key): version.picture
        for sample in found.samples
        for version in sample.versions
        if version.kind == kind and version.picture is not None
    }


def training(**options: Any) -> View:
    return View(split="train", shuffle=True, augment=True, num_epochs=EPOCHS, **options)


@pytest.mark.parametrize("backend", ["opencv", "dali"])
@pytest.mark.parametrize("name", POLICIES)
def test_versions_are_the_pixels_that_training_reads(name: str, backend: Any, index_path: Path) -> None:
    plan = Plan(index=index_path, augment=POLICIES[name], evaluate=[RESIZE], seed=5, batch={"size": 7})
    found = preview(plan, samples=6, versions=EPOCHS, backend=backend)
    wanted, _ = feed_images(plan, training(), backend)
    pictures = shown(found)
    assert len(pictures) == 6 * EPOCHS
    for place, picture in pictures.items():
        np.testing.assert_array_equal(picture.pixels, wanted[place])
    evaluated, _ = feed_images(plan, View(split="train"), backend)
    for place, picture in shown(found, "evaluation").items():
        np.testing.assert_array_equal(picture.pixels, evaluated[place])


def test_normalised_pictures_are_shown_as_they_were_before(index_path: Path) -> None:
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    normalize = A.Normalize(mean=tuple(mean), std=tuple(std))
    plan = Plan(index=index_path, preprocess=[normalize], augment=POLICIES["geometric"], evaluate=[RESIZE])
    found = preview(plan, samples=3, versions=EPOCHS)
    wanted, _ = feed_images(plan, training())
    for place, picture in shown(found).items():
        pixels = wanted[place].transpose(1, 2, 0) * std + mean
        np.testing.assert_array_equal(picture.pixels, np.round(pixels * 255))
    assert "mean (0.4, 0.5, 0.6), std (0.2, 0.25, 0.3)" in found.notes[0]
    assert found.samples[0].versions[0].steps[-1].name == "Normalize"


def test_floats_of_the_policy_are_stretched_and_it_says_so(index_path: Path) -> None:
    policy = [RESIZE, A.Normalize(normalization="image")]
    found = preview(Plan(index=index_path, augment=policy), samples=1, versions=1)
    (picture,) = shown(found).values()
    assert picture.stretched
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
    assert any("stretched" in note for note in found.notes)


def test_one_channel_is_shown_as_gray(index_path: Path) -> None:
    policy = [RESIZE, A.ToGray(num_output_channels=1, p=1)]
    found = preview(Plan(index=index_path, augment=policy, evaluate=[RESIZE]), samples=1, versions=1)
    (picture,) = shown(found).values()
    assert picture.pixels.shape == (64, 80, 3)
    assert (picture.pixels == picture.pixels[..., :1]).all()


def test_a_lossy_cache_shows_in_the_pixels_and_stays_untouched(index_path: Path, tmp_path: Path) -> None:
    plan = Plan(
        index=index_path,
        preprocess=[RESIZE],
        augment=[A.HorizontalFlip()],
        cache={"dir": tmp_path / "cache", "format": "jpeg", "quality": 30},
    )
    found = preview(plan, samples=4, versions=2)
    assert not (tmp_path / "cache").exists()
    wanted, _ = feed_images(plan, training())
    for place, picture in shown(found).items():
        np.testing.assert_array_equal(picture.pixels, wanted[place])


@pytest.mark.parametrize("mix", [{"kind": "MixUp", "alpha": 2.0}, {"kind": "CutMix", "alpha": 1.0, "p": 0.6}])
@pytest.mark.parametrize("size", [6, 20])
def test_mixed_images_are_the_first_of_a_training_batch(
    mix: dict[str, Any], size: int, index_path: Path
) -> None:
    plan = Plan(
        index=index_path, augment=POLICIES["geometric"], evaluate=[RESIZE], mix=mix, batch={"size": size}
    )
    found = preview(plan, samples=2, versions=EPOCHS).mixed
    assert found is not None
    assert found.is_mixed
    _, batches = feed_images(plan, training())
    (batch,) = (one for one in batches if (one.epoch, one.step) == (found.epoch, 0))
    assert batch.mixed_labels is not None
    assert batch.mixed_weights is not None
    first = 0 if size <= 8 else 1
    assert len(found.images) == min(size, 8)
    for row, image in enumerate(found.images, first):
        np.testing.assert_array_equal(image.picture.pixels, batch.images[row].numpy())
        assert image.key == batch.keys[row]
        assert image.mixed_label == ("cat", "dog")[int(batch.mixed_labels[row])]
        assert image.share == pytest.approx(float(batch.mixed_weights[row]))


def test_versions_are_shown_before_they_are_mixed(index_path: Path) -> None:
    policy = POLICIES["geometric"]
    plain = Plan(index=index_path, augment=policy, evaluate=[RESIZE])
    mixing = plain.model_copy(update={"mix": lightwell.Mix(kind="MixUp")})
    wanted, pictures = shown(preview(plain, samples=2)), shown(preview(mixing, samples=2))
    assert wanted.keys() == pictures.keys()
    for place in wanted:
        np.testing.assert_array_equal(pictures[place].pixels, wanted[place].pixels)


@pytest.mark.parametrize("orientation", [1, 6])
def test_annotations_move_with_the_pixels(orientation: int, tmp_path: Path) -> None:
    scenes = [drawn_scene(f"{i}.png", i, orientation=orientation) for i in range(4)]
    path = write_index(tmp_path, scenes)
    policy = [
        A.HorizontalFlip(),
        A.VerticalFlip(),
        A.RandomRotate90(),
        A.Resize(240, 320),
        A.Affine(scale=0.8, p=0.5),
    ]
    plan = Plan(index=path, augment=policy, evaluate=[A.Resize(300, 100)])
    found = preview(plan, samples=4, versions=4, split="")
    pictures = [one.original for one in found.samples]
    pictures += [version.picture for one in found.samples for version in one.versions]
    assert len(pictures) == 4 * 6
    for picture in pictures:
        assert picture is not None
        assert picture.mask is not None
        red = np.abs(picture.pixels.astype(int) - RED).sum(axis=2) < 150
        assert np.mean(red == (picture.mask == 1)) > 0.98
        (box,), (point,) = picture.boxes, picture.points
        height, width = red.shape
        ys, xs = np.nonzero(red)
        drawn = [xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height]
        marked = [box.left, box.top, box.left + box.width, box.top + box.height]
        np.testing.assert_allclose(np.array(marked) / 100, drawn, atol=0.03)
        x, y = int(point.left * width / 100), int(point.top * height / 100)
        assert np.abs(picture.pixels[y, x].astype(int) - GREEN).sum() < 150
        assert (box.name, point.name) == ("tree", "point")


def test_a_keypoint_that_left_the_picture_is_not_drawn(tmp_path: Path) -> None:
    path = write_index(tmp_path, [drawn_scene("a.png", 0)])
    plan = Plan(index=path, evaluate=[A.Crop(0, 0, 50, 120)])
    (sample,) = preview(plan, versions=0).samples
    assert sample.original is not None
    assert len(sample.original.points) == 1
    (version,) = sample.versions
    assert version.picture is not None
    assert version.picture.points == ()


def test_the_choice_is_over_classes_and_follows_the_seed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=30, classes=("a", "a", "a", "b", "c"))
    index = build_index(folder, fractions={"train": 1.0})
    rows = index.rows("train")
    labels = index.table["label"].to_numpy()
    chosen = choose_rows(index, rows, 9, 0)
    assert np.bincount(labels[chosen]).tolist() == [3, 3, 3]
    assert len(set(chosen.tolist())) == 9
    assert chosen.tolist() == choose_rows(index, rows, 9, 0).tolist()
    assert any(chosen.tolist() != choose_rows(index, rows, 9, seed).tolist() for seed in range(1, 4))
    assert sorted(choose_rows(index, rows, 99, 0).tolist()) == rows.tolist()


def test_of_many_classes_some_are_chosen_evenly(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=20, classes=tuple(f"{i:02}" for i in range(20)))
    index = build_index(folder, fractions={"train": 1.0})
    seen = set()
    for seed in range(6):
        numbers = np.sort(index.table["label"].to_numpy()[choose_rows(index, index.rows(), 5, seed)])
        assert set(np.diff([*numbers, numbers[0] + 20]).tolist()) == {4}
        seen.add(tuple(numbers.tolist()))
    assert len(seen) > 1


def bad_folder(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Pictures of which one is cut short after indexing, one has vanished and one never was a picture."""
    folder = make_folder(tmp_path / "photos", num_images=4)
    (folder / "cat" / "no.jpg").write_bytes(b"no picture at all")
    path = tmp_path / "index.parquet"
    build_index(folder, fractions={"train": 1.0}).save(path)
    cut, gone = folder / "cat" / "000.jpg", folder / "dog" / "001.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    gone.unlink()
    return path, {"cat/000.jpg": "read", "dog/001.jpg": "read", "cat/no.jpg": "index"}


def test_samples_that_cannot_be_used_are_shown_with_the_reason(tmp_path: Path) -> None:
    path, bad = bad_folder(tmp_path)
    plan = Plan(index=path, augment=[RESIZE], errors={"on_error": "raise"})
    found = preview(plan, keys=[*bad, "dog/003.jpg"])
    for sample, step in zip(found.samples, bad.values(), strict=False):
        assert sample.failed is not None
        assert (sample.failed.step, sample.versions, sample.original) == (step, (), None)
        assert sample.failed.reason in found._repr_html_().replace("&#39;", "'")
    assert found.samples[-1].failed is None


def test_a_policy_that_fails_costs_the_version(index_path: Path) -> None:
    policy = [A.RandomCrop(110, 100, pad_if_needed=False)]
    found = preview(Plan(index=index_path, augment=policy), samples=8, versions=1)
    failed = [version.failed for sample in found.samples for version in sample.versions]
    assert {one.step for one in failed if one} == {"policy"}
    assert all(sample.original is not None for sample in found.samples)
    assert "policy: " in found._repr_html_()


def test_limits_of_the_plan_hold_for_the_original(index_path: Path) -> None:
    found = preview(Plan(index=index_path, errors={"max_pixels": 1000}), samples=2)
    assert all(sample.failed is not None and sample.failed.step == "limit" for sample in found.samples)


def test_huge_pictures_are_scaled_down_for_the_page(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 4000, 3), dtype=np.uint8)
    write_picture(tmp_path / "photos" / "a" / "huge.png", noise)
    build_index(tmp_path / "photos", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    found = preview(Plan(index=tmp_path / "index.parquet"), versions=2)
    (sample,) = found.samples
    assert sample.original is not None
    assert sample.original.size == (1500, 4000)
    assert sample.original.pixels.shape == (120, 320, 3)
    assert found.save(tmp_path / "preview.html") < 500_000


def test_pictures_of_different_sizes_are_warned_of(index_path: Path) -> None:
    same = preview(Plan(index=index_path, preprocess=[RESIZE]), samples=3)
    other = preview(Plan(index=index_path, augment=[RESIZE]), samples=3)
    assert same.notes == ()
    assert any("different sizes" in note for note in other.notes)


def test_a_feed_shows_its_own_view_and_stays_where_it_is(index_path: Path) -> None:
    plan = Plan(index=index_path, augment=POLICIES["geometric"], evaluate=[RESIZE], batch={"size": 7})
    view = View(split="train", augment=True, first_epoch=2, num_epochs=2)
    with LocalEngine(num_threads=1).feed(plan, view) as feed:
        batches = iter(feed)
        next(batches)
        position, counts = feed.position(), feed.counts
        found = feed.preview(samples=3, versions=2)
        assert (feed.position(), feed.counts) == (position, counts)
        assert len(list(batches)) == feed.num_batches - 1
    wanted, _ = feed_images(plan, view)
    assert {epoch for epoch, _ in shown(found)} == {2, 3}
    for place, picture in shown(found).items():
        np.testing.assert_array_equal(picture.pixels, wanted[place])


def test_a_feed_that_does_not_augment_shows_evaluation_only(index_path: Path) -> None:
    plan = Plan(index=index_path, augment=[A.HorizontalFlip()])
    keys = tuple(Index.open(index_path).table["key"].to_pylist()[3:6])
    with LocalEngine(num_threads=1).feed(plan, View(keys=keys)) as feed:
        found = feed.preview(samples=2)
    assert [sample.key for sample in found.samples] == list(keys[:2])
    assert [version.kind for sample in found.samples for version in sample.versions] == ["evaluation"] * 2


def test_requests_that_cannot_be_right_are_refused(index_path: Path, tmp_path: Path) -> None:
    plan = Plan(index=index_path)
    for options in ({"samples": 0}, {"versions": 11}, {"keys": []}, {"seed": -1}):
        with pytest.raises(PlanError, match="expected"):
            preview(plan, **options)
    with pytest.raises(SourceError, match=r"keys: .*'nobody\.jpg'"):
        preview(plan, keys=["nobody.jpg"])
    with pytest.raises(SourceError, match="split 'tset'"):
        preview(plan, split="tset")
    found = lightwell.preview(plan, samples=1)
    with pytest.raises(RequestError, match="earlier preview"):
        found.save(index_path)
    found.save(tmp_path / "preview.html")
    found.save(tmp_path / "preview.html")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_plan_for_a_gpu_is_shown_from_the_cpu_where_there_is_none(index_path: Path) -> None:
    options = {"index": index_path, "augment": POLICIES["geometric"], "evaluate": [RESIZE]}
    found = preview(Plan(**options, device="gpu"), samples=2, versions=2)
    assert "made on the CPU" in found.notes[0]
    wanted = shown(preview(Plan(**options), samples=2, versions=2))
    for place, picture in shown(found).items():
        np.testing.assert_array_equal(picture.pixels, wanted[place].pixels)


def test_all_labels_of_an_image_are_named(tmp_path: Path) -> None:
    make_folder(tmp_path, num_images=2, classes=("x",))
    (tmp_path / "table.csv").write_text("path,label\nx/000.jpg,sun|sea\nx/001.jpg,sea\n")
    build_index(tmp_path / "table.csv", label_separator="|").save(tmp_path / "index.parquet")
    found = preview(Plan(index=tmp_path / "index.parquet"), keys=["x/000.jpg", "x/001.jpg"], versions=0)
    assert [sorted(sample.label.split(", ")) for sample in found.samples] == [["sea", "sun"], ["sea"]]
