"""Learning-rate schedules, early stopping, optimizers and the loss, against their formulas."""

import math

import numpy as np
import pytest
import torch
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.evaluation import EpochMetrics, EvalResult, evaluate
from lightwell.models.training.optim import EarlyStop, OptimizerSpec, best_epoch
from lightwell.models.training.optimization.schedule import LRSchedule
from lightwell.models.training.step import TrainStep
from lightwell.models.training.tasks.classification import (
    ClassificationMetrics,
    ClassificationTask,
    CrossEntropy,
)
from lightwell.models.training.tasks.task import mean_loss
from lightwell.models.training.train_batch import TrainBatch, to_train_batch
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.errors import PlanError, RunError


class TwoClasses(ClassificationTask):
    """Classification into two classes, without an index."""

    classes = ("a", "b")

    def __init__(self) -> None:
        pass


TWO = TwoClasses()


def examples(labels: list[int], replaced: list[bool] | None = None, width: int = 4) -> TrainBatch:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(len(labels), width, generator=generator)
    return TrainBatch(inputs, torch.tensor(labels), torch.tensor(replaced or [False] * len(labels)))


def learn(
    head: torch.nn.Module, batch: TrainBatch, optimizer: torch.optim.Optimizer, *, factor: float
) -> EvalResult:
    running = EpochMetrics(ClassificationMetrics(2))
    TrainStep(head, optimizer, CrossEntropy())(batch, running, factor=factor)
    return running.compute(DistributedContext())


def test_cosine_falls_from_the_peak_to_zero_after_a_linear_warm_up() -> None:
    schedule = LRSchedule(kind="cosine", warmup_epochs=1)
    assert [round(schedule.factor(done, 5), 6) for done in (0, 0.5, 1, 3, 5)] == [0, 0.5, 1, 0.5, 0]


def test_step_and_constant() -> None:
    step = LRSchedule(kind="step", step_epochs=2, step_factor=0.1)
    assert [step.factor(done, 9) for done in (0, 1.9, 2, 4.5)] == pytest.approx([1, 1, 0.1, 0.01])
    assert LRSchedule(kind="constant").factor(7.5, 8) == 1


def test_a_schedule_can_be_given_by_name() -> None:
    assert LRSchedule.model_validate("step") == LRSchedule(kind="step")
    with pytest.raises(PlanError, match=r"Schedule: kind: expected .*'step'.*, got 'stairs'"):
        LRSchedule.model_validate("stairs")


def test_undefined_values_rank_last_and_ties_are_resolved_by_loss_then_epoch() -> None:
    history = [
        {"loss": 0.9, "auroc": None},
        {"loss": 0.7, "auroc": 0.7},
        {"loss": 0.6, "auroc": 0.7},
        {"loss": 0.6, "auroc": 0.7},
        {"loss": 0.1, "auroc": 0.6},
    ]
    assert best_epoch(history, "auroc") == 2
    assert best_epoch(history, "loss") == 4
    assert best_epoch(history[:1], "auroc") == 0


def test_a_metric_that_is_defined_in_no_epoch_is_replaced_by_the_loss() -> None:
    history = [{"loss": loss, "auroc": None} for loss in (0.9, 0.5, 0.7, 0.4)]
    assert best_epoch(history, "auroc") == 3
    assert not EarlyStop(metric="auroc", patience=2).is_reached(history)
    assert EarlyStop(metric="auroc", patience=1).is_reached(history[:3])


def test_early_stop_waits_for_its_patience() -> None:
    rows = [{"loss": value} for value in (1.0, 0.8, 0.9, 0.85)]
    stop = EarlyStop(metric="loss", patience=2)
    assert [stop.is_reached(rows[:count]) for count in range(5)] == [False, False, False, False, True]


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_backbone_learning_rate_is_scaled_by_backbone_lr_mult(name: str, kind: type) -> None:
    head, backbone = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    spec = OptimizerSpec(name=name, lr=0.2, backbone_lr_mult=0.25)
    optimizer = spec.build(list(head.parameters()), list(backbone.parameters()))
    assert isinstance(optimizer, kind)
    assert [group["base_lr"] for group in optimizer.param_groups] == [0.2, 0.05]
    assert len(spec.build(list(head.parameters()), []).param_groups) == 1


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_torchs_cross_entropy(weights: torch.Tensor | None, smoothing: float) -> None:
    batch = examples([0, 1, 2, -1, 1], width=3)
    usual = torch.nn.CrossEntropyLoss(weights, ignore_index=-1, label_smoothing=smoothing)
    ours = mean_loss(CrossEntropy(weights, smoothing), batch.inputs, batch)
    assert float(ours) == pytest.approx(float(usual(batch.inputs, batch.targets)), rel=1e-6)


def test_mixed_images_contribute_to_both_labels() -> None:
    plain = examples([0, 1], width=3)
    share = torch.tensor([0.25, 0.25])
    mixed = TrainBatch(plain.inputs, plain.targets, plain.replaced, torch.tensor([2, 0]), share)
    usual = torch.nn.CrossEntropyLoss()
    wanted = 0.75 * usual(plain.inputs, plain.targets) + 0.25 * usual(plain.inputs, torch.tensor([2, 0]))
    assert float(mean_loss(CrossEntropy(), plain.inputs, mixed)) == pytest.approx(float(wanted), rel=1e-6)


def test_a_batch_without_labels_changes_no_weights() -> None:
    batch = examples([-1, -1], width=3)
    assert float(mean_loss(CrossEntropy(), batch.inputs, batch)) == 0


def test_uint8_images_become_float_nchw_in_0_to_1() -> None:
    images = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).reshape(2, 4, 5, 3)
    batch = Batch(images, torch.tensor([0, 1]), ("a", "b"), 0, 0, np.array([False, True]), np.zeros(2, bool))
    made = to_train_batch(batch, torch.device("cpu"))
    assert made.inputs.shape == (2, 3, 4, 5)
    assert torch.equal(made.inputs, images.permute(0, 3, 1, 2).float() / 255)
    assert made.replaced.tolist() == [False, True]


def test_padding_affects_neither_training_nor_metrics() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(3, 3, 4, 4), torch.tensor([0, 1, 1])
    mixed_in = torch.tensor([1, 0, 1]), torch.full((3,), 0.3)
    padded = Batch(
        images,
        labels,
        ("a", "b", "a"),
        0,
        0,
        np.zeros(3, bool),
        np.array([False, False, True]),
        mixed_labels=mixed_in[0],
        mixed_weights=mixed_in[1],
    )
    outcomes, losses = [], []
    for batch in (padded, padded.without_padding()):
        head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        torch.manual_seed(1)
        torch.nn.init.normal_(head[1].weight)
        optimizer = OptimizerSpec(name="sgd", lr=0.1).build(list(head.parameters()), [])
        examples = to_train_batch(batch, torch.device("cpu"))
        with torch.no_grad():
            head[1].bias.zero_()
            criterion = CrossEntropy(label_smoothing=0.1)
            losses.append(float(mean_loss(criterion, head(examples.inputs), examples)))
        outcomes.append(learn(head, examples, optimizer, factor=1.0))
    assert losses[0] == pytest.approx(losses[1])
    first, second = outcomes
    assert (first.num_read, first.metrics.num_images, first.metrics.num_ignored) == (2, 2, 0)
    assert first.loss == pytest.approx(second.loss)


def test_replaced_rows_are_trained_on_but_not_evaluated() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 2)
    batch = examples([0, 1, 0, 1], [False, False, True, True])
    outcome = evaluate(head, [batch], TWO, 4)
    assert (outcome.metrics.num_images, outcome.metrics.num_ignored) == (2, 2)
    kept = torch.nn.functional.cross_entropy(head(batch.inputs[:2]), batch.targets[:2])
    assert outcome.loss == pytest.approx(float(kept.detach()))
    optimizer = OptimizerSpec(name="sgd", lr=0.1, momentum=0, weight_decay=0).build(
        list(head.parameters()), []
    )
    before = head.weight.detach().clone()
    loss = torch.nn.functional.cross_entropy(head(batch.inputs), batch.targets)
    (gradient,) = torch.autograd.grad(loss, head.weight)
    trained = learn(head, batch, optimizer, factor=0.5)
    assert torch.allclose(head.weight, before - 0.05 * gradient)
    assert (trained.metrics.num_images, trained.num_read) == (2, 4)


def test_evaluation_restores_training_flags() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4).eval(), torch.nn.Dropout(), torch.nn.Linear(4, 2))
    flags = [part.training for part in model]
    evaluate(model, [examples([0, 1])], TWO, 2)
    assert [part.training for part in model] == flags


def test_a_non_finite_loss_stops_training_with_a_hint() -> None:
    head = torch.nn.Linear(4, 2)
    torch.nn.init.constant_(head.weight, math.inf)
    optimizer = OptimizerSpec().build(list(head.parameters()), [])
    with pytest.raises(RunError, match=r"expected a finite loss, got .* at step 0; lower optimizer\.lr"):
        learn(head, examples([0, 1]), optimizer, factor=1.0)


def test_non_finite_gradients_stop_training_before_the_weights_change() -> None:
    head = torch.nn.Linear(4, 2)
    head.weight.register_hook(lambda gradient: gradient * math.inf)
    before = head.weight.detach().clone()
    optimizer = OptimizerSpec().build(list(head.parameters()), [])
    with pytest.raises(RunError, match=r"expected finite gradients, .* at step 0; lower optimizer\.lr"):
        learn(head, examples([0, 1]), optimizer, factor=1.0)
    assert torch.equal(head.weight, before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_scores_stop_the_evaluation(value: float) -> None:
    head = torch.nn.Linear(4, 2)
    torch.nn.init.constant_(head.bias, value)
    with pytest.raises(RunError, match=r"NaN or infinity for 2 of 2 images; lower optimizer\.lr"):
        evaluate(head, [examples([0, 1])], TWO, 2)


def test_a_batch_of_one_image_with_batchnorm_is_refused_with_a_hint() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))
    optimizer = OptimizerSpec().build(list(net.parameters()), [])
    with pytest.raises(PlanError, match=r"batch\.size: expected at least 2 images .* raise batch\.size"):
        learn(net, examples([0]), optimizer, factor=1.0)


def test_both_heads_of_a_distilled_model_use_the_learning_rate_of_the_head() -> None:
    model = build_model(ModelSpec(name="deit_tiny_distilled_patch16_224", weights="none", num_classes=2))
    head, backbone = OptimizerSpec(lr=0.2, backbone_lr_mult=0.5).build_for(model).param_groups
    own = [*model.head.parameters(), *model.head_dist.parameters()]
    assert (head["base_lr"], backbone["base_lr"]) == (0.2, 0.1)
    assert {id(each) for each in head["params"]} == {id(each) for each in own}
    assert len(head["params"]) + len(backbone["params"]) == len(list(model.parameters()))


def test_saturated_confidences_still_rank_images() -> None:
    """In float32 the softmax of these is 1 for all of class 1 and one of class 0."""
    margins = torch.tensor([[90.0, 0.0], [0.0, 100.0], [0.0, 110.0], [0.0, 120.0]])
    batch = TrainBatch(margins, torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.bool))
    assert evaluate(torch.nn.Identity(), [batch], TWO, 4).metrics.as_dict()["auroc"] == 1
