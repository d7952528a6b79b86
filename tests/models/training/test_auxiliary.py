"""Auxiliary heads of GoogLeNet and Inception: losses in training, off in evaluation, kept in checkpoints."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightwell.models.training.evaluation import EpochMetrics, compute_logits
from lightwell.models.training.job import Classify
from lightwell.models.training.optimization.unfreezing import set_all_trainable
from lightwell.models.training.prepare import build_trainable, check_auxiliary_heads
from lightwell.models.training.step import TrainStep
from lightwell.models.training.tasks.classification import ClassificationMetrics, CrossEntropy
from lightwell.models.training.train_batch import TrainBatch
from lightwell.models.zoo.build import ModelSpec, build_model, weights_report
from lightwell.models.zoo.forward import split_outputs
from lightwell.pipeline.errors import ModelError
from torch import nn
from torch.nn import functional

GOOGLENET = ModelSpec(name="googlenet", weights="none", num_classes=3, auxiliary_heads=True)


@pytest.fixture(scope="module")
def googlenet() -> nn.Module:
    return build_model(GOOGLENET)


def test_training_adds_three_tenths_of_each_auxiliary_loss(googlenet: nn.Module) -> None:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2])
    googlenet.train()
    torch.manual_seed(5)
    with torch.no_grad():
        main, auxiliary = split_outputs(googlenet(x))
    expected = [functional.cross_entropy(each, labels) for each in (main, *auxiliary)]
    assert len(expected) == 3
    optimizer = torch.optim.SGD([{"params": list(googlenet.parameters()), "base_lr": 0.0}], lr=0.0)
    running = EpochMetrics(ClassificationMetrics(3))
    torch.manual_seed(5)
    TrainStep(googlenet, optimizer, CrossEntropy())(
        TrainBatch(x, labels, torch.zeros(2, dtype=torch.bool)), running, factor=1.0
    )
    assert running.loss / 2 == pytest.approx(float(expected[0] + 0.3 * (expected[1] + expected[2])), rel=1e-5)
    for name in ("aux1.fc2", "aux2.fc2", "fc"):
        weight = googlenet.get_submodule(name).weight
        assert isinstance(weight, nn.Parameter)
        assert weight.grad is not None
        assert bool(weight.grad.any())
    assert compute_logits(googlenet.eval(), x).shape == (2, 3)
    googlenet.zero_grad()


def test_auxiliary_heads_are_saved_loaded_and_renewed_with_the_head(
    tmp_path: Path, googlenet: nn.Module
) -> None:
    spec, model = GOOGLENET, googlenet
    path = tmp_path / "net.pth"
    torch.save(model.state_dict(), path)
    again = build_model(spec.model_copy(update={"weights": str(path)}), seed=9)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    wider = build_model(spec.model_copy(update={"weights": str(path), "num_classes": 4}))
    rows = {
        key: len(value)
        for key, value in wider.state_dict().items()
        if key.endswith(("fc.weight", "fc2.weight"))
    }
    assert set(rows.values()) == {4}
    assert set(weights_report(wider).untrained) == {key.removesuffix(".weight") for key in rows}
    plain = build_model(spec.model_copy(update={"weights": str(path), "auxiliary_heads": False}))
    assert {key.partition(".")[0] for key in weights_report(plain).left_over} == {"aux1", "aux2"}
    trunk = {key: value for key, value in model.state_dict().items() if not key.startswith("aux")}
    torch.save(trunk, path)
    added = weights_report(build_model(spec.model_copy(update={"weights": str(path)})))
    assert added.untrained == ("aux1", "aux2")
    assert "the file has no 'aux1', 'aux2'" in added.line()


def test_the_auxiliary_heads_of_published_weights_are_reported_as_untrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = build_model(GOOGLENET.model_copy(update={"num_classes": 1000}))
    path = tmp_path / "hub" / "checkpoints" / "googlenet-1378be20.pth"
    path.parent.mkdir(parents=True)
    torch.save(published.state_dict(), path)
    model = build_model(GOOGLENET.model_copy(update={"weights": "default"}))
    assert weights_report(model).untrained == ("aux1", "aux2", "fc")
    assert (
        "the auxiliary heads of torchvision's GoogLeNet weights are untrained" in weights_report(model).line()
    )
    for name, rows in (("fc", 3), ("aux1.fc2", 3), ("aux1.fc1", 1024)):
        assert len(model.get_submodule(name).weight) == rows
    assert torch.equal(model.conv1.conv.weight, published.conv1.conv.weight)


@pytest.mark.parametrize(
    ("keys", "works"),
    [
        ({}, False),
        ({"fine_tune_from": "inception4e"}, False),
        ({"fine_tune_from": "inception4d"}, True),
        ({"unfreeze": [{"epoch": 0, "from": "head"}]}, False),
        ({"unfreeze": [{"epoch": 0, "from": "head"}, {"epoch": 1, "from": "inception5a"}]}, False),
        ({"unfreeze": [{"epoch": 0, "from": "head"}, {"epoch": 1, "from": "inception4a"}]}, True),
    ],
)
def test_auxiliary_heads_need_a_block_before_them_that_learns_in_some_epoch(
    googlenet: nn.Module, keys: dict[str, object], *, works: bool
) -> None:
    job = Classify.model_validate({"plan": {"index": "i.parquet"}, "model": GOOGLENET.model_dump(), **keys})
    flags = [parameter.requires_grad for parameter in googlenet.parameters()]
    set_all_trainable(googlenet, job.stages)
    expected = nullcontext() if works else pytest.raises(ModelError, match="expected inception4d or earlier")
    with expected:
        check_auxiliary_heads(googlenet)
    for parameter, flag in zip(googlenet.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)


def test_a_job_whose_auxiliary_heads_train_nothing_is_refused() -> None:
    job = Classify.model_validate({"plan": {"index": "i.parquet"}, "model": GOOGLENET.model_dump()})
    with pytest.raises(ModelError, match="auxiliary_heads: expected"):
        build_trainable(job, 3)
