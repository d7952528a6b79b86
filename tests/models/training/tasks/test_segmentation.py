"""Segmentation: networks, loss and metrics against torch and values by hand, and jobs from masks to a checkpoint."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightwell.models.audits.gradcam.audited_model import load_audited_model
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.training.checkpoint import load_model
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.tasks.jobs import Segment
from lightwell.models.training.tasks.segmentation import DiceCrossEntropy, SegmentationMetrics, class_numbers
from lightwell.models.training.tasks.task import mean_loss
from lightwell.models.training.train_batch import TrainBatch
from lightwell.models.zoo.segmentation import SegmentationSpec, build_segmentation_model
from lightwell.models.zoo.unet import UNet
from lightwell.models.zoo.weights_report import weights_report
from lightwell.pipeline.errors import LightwellError, ModelError, PlanError, RunError
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from safetensors.torch import save_file
from tasks import mask_set, write_job

ENCODER = SegmentationSpec(name="fpn", encoder="tu-test_resnet", encoder_weights="none")

NORMALIZE = [{"Normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}}]


def batch_of(targets: list[Any], replaced: int | None = None) -> TrainBatch:
    flags = torch.zeros(len(targets), dtype=torch.bool)
    if replaced is not None:
        flags[replaced] = True
    return TrainBatch(torch.zeros(len(targets), 1), torch.tensor(targets), flags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("masks")
    mask_set(root)
    return root


def test_the_unet_has_the_published_number_of_parameters_and_returns_scores_of_the_pictures_size() -> None:
    with torch.device("meta"):
        published = UNet(2, in_channels=1)
    assert sum(parameter.numel() for parameter in published.parameters()) == 31_030_658
    small = UNet(3, width=2)
    assert small(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def test_the_loss_is_torchs_cross_entropy_plus_dice_by_hand_and_void_counts_in_neither() -> None:
    scores = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    batch = batch_of([[[0, 1], [-1, 1]], [[-1, -1], [-1, 2]]])
    pixels = torch.nn.functional.cross_entropy(scores, batch.targets, ignore_index=-1)
    assert float(mean_loss(DiceCrossEntropy(2.0, 0.0), scores, batch)) == pytest.approx(2 * float(pixels))
    p = scores.softmax(dim=1)
    one = 1 - (2 * p[0, 0, 0, 0] + 1) / (p[0, 0, [0, 0, 1], [0, 1, 1]].sum() + 1 + 1)
    two = 1 - (2 * p[0, 1, [0, 1], [1, 1]].sum() + 1) / (p[0, 1, [0, 0, 1], [0, 1, 1]].sum() + 2 + 1)
    three = 1 - (2 * p[1, 2, 1, 1] + 1) / (p[1, 2, 1, 1] + 1 + 1)
    dice = float(one + two + three) / 3
    assert float(mean_loss(DiceCrossEntropy(0.0, 1.0), scores, batch)) == pytest.approx(dice)
    changed = scores.clone()
    changed[:, :, 1, 0] += 5  # void in both pictures
    for criterion in (DiceCrossEntropy(), DiceCrossEntropy(0.0, 1.0)):
        assert float(mean_loss(criterion, changed, batch)) == pytest.approx(
            float(mean_loss(criterion, scores, batch))
        )


def test_a_batch_of_void_alone_changes_no_weights() -> None:
    scores = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = mean_loss(DiceCrossEntropy(), scores, batch_of([[[-1, -1], [-1, -1]]]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not scores.grad.any()


def test_metrics_by_hand_without_replaced_pictures() -> None:
    metrics = SegmentationMetrics(("a", "b", "c"))
    truth = [[[0, 0], [1, -1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]]
    predicted = torch.tensor([[[0, 1], [1, 2]], [[1, 1], [1, 0]], [[2, 2], [2, 2]]])
    metrics.update(torch.nn.functional.one_hot(predicted, 3).permute(0, 3, 1, 2), batch_of(truth, replaced=2))
    result = metrics.compute(DistributedContext(), 3)
    # a: 1 of 2 true, 1 false; b: 4 of 5 true, 1 false; c: in neither
    assert result.as_dict() == {
        "images": 2,
        "ignored": 1,
        "miou": pytest.approx((1 / 3 + 4 / 6) / 2),
        "pixel_accuracy": pytest.approx(5 / 7),
    }
    assert result.details()["iou"] == {"a": pytest.approx(1 / 3), "b": pytest.approx(2 / 3), "c": None}
    assert result.details()["confusion"] == [[1, 1, 0], [1, 4, 0], [0, 0, 0]]


def test_values_of_masks_become_classes_in_order_without_void() -> None:
    numbers = class_numbers(3, [0, 2])
    assert numbers[[0, 1, 2, 3, 4, 5, 254, 255]].tolist() == [-1, 0, -1, 1, 2, -2, -2, -1]


def test_a_job_learns_masks_and_its_checkpoint_loads(folder: Path, tmp_path: Path) -> None:
    plan = {"mix": None, "preprocess": NORMALIZE, "batch": {"size": 2}}
    path = write_job(
        folder,
        "segment",
        epochs=7,
        model={"name": "unet", "width": 8},
        plan=plan,
        early_stop={"patience": 7},
        ema=None,
        accumulate=1,
    )
    job = load_job(path, default="classify")
    assert isinstance(job, Segment)
    assert (job.monitor, job.early_stop.metric) == ("miou", "miou")
    result = run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())
    assert result["test"]["images"] == 4
    assert result["test"]["miou"] > 0.7  # of a constant prediction: about 0.4
    best = tmp_path / "out" / "best.safetensors"
    loaded = load_model(best)
    assert loaded.classes == ("ground", "disc")
    with pytest.raises(ModelError, match=r"expected one of a classifier, got one of the task 'segment'"):
        load_audited_model(GradCamAudit(plan=job.plan, checkpoint=best))
    assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 32, 32)


def test_an_encoder_of_timm_is_trained_with_the_decoder_at_the_full_rate(
    folder: Path, tmp_path: Path
) -> None:
    job = load_job(
        write_job(folder, "segment", model=ENCODER.model_dump(exclude={"width"}), epochs=1),
        default="classify",
    )
    run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())
    model = load_model(tmp_path / "out" / "best.safetensors").model
    assert job.head_layers(model) == ("decoder", "segmentation_head")
    frozen = job.model_copy(update={"fine_tune_from": "segmentation_head.0"})
    run_training_job(frozen, LocalEngine(num_threads=1), tmp_path / "frozen", SilentConsole())
    first = build_segmentation_model(ENCODER, 2, seed=0)
    report = weights_report(load_model(tmp_path / "frozen" / "best.safetensors").model)
    assert any("random and frozen" in note for note in report.notes)
    assert set(first.state_dict()) == set(model.state_dict())


def test_a_trunk_in_a_file_becomes_the_encoder(tmp_path: Path) -> None:
    source = build_segmentation_model(ENCODER, 2, seed=5)
    trunk = {name: tensor.clone() for name, tensor in source.encoder.model.state_dict().items()}
    save_file({**trunk, "fc.weight": torch.zeros(3, 3)}, tmp_path / "trunk.safetensors")
    spec = ENCODER.model_copy(update={"encoder_weights": str(tmp_path / "trunk.safetensors")})
    built = build_segmentation_model(spec, 2, seed=6)
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in built.encoder.model.state_dict().items())
    report = weights_report(built)
    assert report.left_over == ("fc.weight",)
    assert report.untrained == ("decoder", "segmentation_head")
    save_file({name: trunk[name] for name in list(trunk)[3:]}, tmp_path / "trunk.safetensors")
    with pytest.raises(ModelError, match="missing"):
        build_segmentation_model(spec, 2)


def test_valid_convolutions_give_the_sizes_of_the_paper_and_see_no_zeros_beyond_the_border() -> None:
    torch.manual_seed(0)
    valid, same = (UNet(2, width=4, in_channels=1, padding=padding).eval() for padding in ("valid", "same"))
    same.load_state_dict(valid.state_dict())
    with torch.inference_mode():
        assert UNet(2, width=1, padding="valid").scores(torch.zeros(1, 3, 572, 572)).shape == (1, 2, 388, 388)
        plain = torch.full((1, 1, 112, 128), 0.7)
        found = [net(plain) for net in (valid, same)]
    steps = [float((one[..., 16:, 16:] - one[..., :-16, :-16]).abs().max()) for one in found]
    assert steps[0] < 1e-5 < 1e-2 < steps[1]  # sixteen pixels further, the same place of the coarsest cell


def test_scores_of_valid_convolutions_stand_at_the_place_of_their_pixels() -> None:
    net = UNet(1, width=1, in_channels=1, padding="valid").eval()
    picture = torch.rand(1, 1, 121, 130, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        first, last = net.down[0], net.merge[-1]
        for layer in (first[0], first[2], last[0], last[2]):  # type: ignore[index]
            layer.weight[0, 0, 1, 1] = 1  # passes the pixel on, over the skip connection
        net.head.weight[0, 0] = 1
        assert torch.equal(net(picture), picture)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "unet", "encoder": "resnet34", "padding": "valid"},
            "padding: expected no encoder beside it",
        ),
        ({"name": "unet", "width": 1, "padding": "valid"}, "model: expected .* got 48 x 48"),
    ],
)
def test_valid_convolutions_that_cannot_work_are_refused(folder: Path, model: Any, message: str) -> None:
    small = [{"Resize": {"height": 48, "width": 48}}]
    with pytest.raises(LightwellError, match=message):
        load_job(
            write_job(folder, "segment", model=model, plan={"preprocess": small}), default="classify"
        ).check_request(trains_here=True)


def test_sizes_that_the_network_cannot_halve_are_refused_with_those_that_work(folder: Path) -> None:
    odd = [{"Resize": {"height": 40, "width": 48}}]
    job = load_job(write_job(folder, "segment", plan={"preprocess": odd}), default="classify")
    expected = (
        r"multiples of 16, .* got 40 x 48; resize, pad or crop them to a height of 32 or 48 and a width of 48"
    )
    with pytest.raises(PlanError, match=expected):
        job.check_request(trains_here=True)
    crop = [{"RandomCrop": {"height": 24, "width": 32}}]
    job = load_job(write_job(folder, "segment", plan={"augment": crop}), default="classify")
    with pytest.raises(PlanError, match=r"augment: .* got 24 x 32;"):
        job.check_request(trains_here=True)


def test_a_value_that_no_class_has_stops_training_with_key_and_step(folder: Path, tmp_path: Path) -> None:
    job = load_job(write_job(folder, "segment", void=[]), default="classify")
    with pytest.raises(
        RunError, match=r"masks: .* got 7 in the mask of 'train-\d+\.png' at step 0; correct classes"
    ):
        run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no classes": ({"classes": None}, "expected either classes or num_classes, got none"),
    "both": ({"num_classes": 2}, "expected either classes or num_classes, got both"),
    "one class": ({"classes": ["a"]}, "expected at least two different names"),
    "void beyond a mask": ({"void": 300}, "void: expected values of 0 to 254"),
    "features": (
        {"feature_passes": 1, "fine_tune_from": None, "plan": {"mix": None}},
        "feature_passes: expected none for segmentation",
    ),
    "no loss": ({"loss": {"cross_entropy": 0, "dice": 0}}, "loss: expected a weight above 0"),
    "no encoder": ({"model": {"name": "fpn"}}, "encoder: expected one for an fpn"),
    "weights without encoder": (
        {"model": {"name": "unet", "encoder_weights": "default"}},
        "expected an encoder beside it",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_job_is_refused_with_the_cure(case: str, folder: Path) -> None:
    changes, message = WRONG[case]
    with pytest.raises(PlanError, match=message):
        load_job(write_job(folder, "segment", **changes), default="classify")


def test_an_unknown_encoder_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelError, match=r"encoder: expected one of .*got 'resnet35'; did you mean .*'resnet34'"
    ):
        build_segmentation_model(SegmentationSpec(name="unet", encoder="resnet35", encoder_weights="none"), 2)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ModelError, match=r"pip install 'lightwell\[segmentation\]'"):
        build_segmentation_model(ENCODER, 2)


def test_an_index_without_masks_is_refused(tmp_path: Path) -> None:
    mask_set(tmp_path, num_train=2, num_other=1)
    table = (tmp_path / "table.csv").read_text().splitlines()
    (tmp_path / "table.csv").write_text("\n".join(line.rpartition(",")[0] for line in table) + "\n")
    from lightwell.pipeline.index.build import build_index

    build_index(tmp_path / "table.csv").save(tmp_path / "index.parquet")
    job = load_job(write_job(tmp_path, "segment"), default="classify")
    with pytest.raises(PlanError, match="index: expected pictures with masks, got none"):
        job.check()


def test_a_mask_of_another_size_costs_its_picture(tmp_path: Path) -> None:
    mask_set(tmp_path, num_train=6, num_other=2)
    other = tmp_path / "mask-train-1.png"
    from PIL import Image

    with Image.open(other) as mask:
        wrong = mask.resize((32, 31))
    wrong.save(other)
    out = tmp_path / "out"
    job = load_job(write_job(tmp_path, "segment", epochs=1), default="classify")
    result = run_training_job(job, LocalEngine(num_threads=1), out, SilentConsole())
    assert result["epochs"] == 1
    assert '"mask"' in (out / "quarantine.jsonl").read_text()
    assert np.isfinite(result["validation"]["loss"])
