"""Stages of gradual unfreezing, and the table of what learns."""

from __future__ import annotations

import pytest
import torch
from lightwell.models.training.optim import OptimizerSpec
from lightwell.models.training.optimization.learning_table import LearningRow, learning_table
from lightwell.models.training.optimization.options import LoRA, UpdateOptions
from lightwell.models.training.optimization.unfreezing import set_all_trainable, stage_at
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.errors import ModelError, PlanError

STAGES = ({"epoch": 0, "from": "head"}, {"epoch": 2, "from": "layer4"}, {"epoch": 3, "from": "all"})


def build(name: str) -> torch.nn.Module:
    return build_model(ModelSpec(name=f"timm:{name}", weights="none", num_classes=2))


def stages(*given: dict[str, object]) -> tuple:
    return UpdateOptions(unfreeze=given).stages


def test_a_stage_lasts_until_the_next() -> None:
    found = [stage_at(stages(*STAGES), epoch).start for epoch in range(5)]
    assert found == ["head", "head", "layer4", "all", "all"]


def test_the_optimizer_holds_what_learns_in_any_stage() -> None:
    model = build("test_resnet")
    set_all_trainable(model, stages(*STAGES[:2]))
    learning = {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"layer4", "fc"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unfreeze": [{"epoch": 1, "from": "head"}]}, r"expected epochs that begin with 0 .* got \[1\]"),
        ({"unfreeze": [*STAGES[:2], {"epoch": 2, "from": "all"}]}, r"and increase, got \[0, 2, 2\]"),
        ({"unfreeze": []}, "expected epochs that begin with 0"),
        ({"unfreeze": STAGES, "fine_tune_from": "all"}, "unfreeze: expected no fine_tune_from beside it"),
        ({"lora": {}, "fine_tune_from": "all"}, "lora: expected no fine_tune_from beside it"),
        ({"time_budget": "soon"}, "a duration such as 30m, 2h or 90s, got 'soon'"),
        ({"time_budget": 0}, "time_budget: expected greater than 0|time_budget: .*greater than 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        UpdateOptions(**keys)


def test_stages_begin_in_front_of_each_other_at_blocks_that_exist() -> None:
    model = build("test_resnet")
    with pytest.raises(
        ModelError, match=r"in front of the one before, got layer3, layer4; blocks in order: conv1"
    ):
        set_all_trainable(model, stages({"epoch": 0, "from": "layer3"}, {"epoch": 1, "from": "layer4"}))
    with pytest.raises(ModelError, match=r"got 'layer_4'; did you mean 'layer4'"):
        set_all_trainable(model, stages({"epoch": 0, "from": "layer_4"}))


def test_durations_are_seconds() -> None:
    given = ("30m", "1.5h", "90 s", 12)
    assert [UpdateOptions(time_budget=value).time_budget for value in given] == [1800, 5400, 90, 12]


def test_the_table_lists_every_block_in_every_stage_with_its_rate() -> None:
    model = build("test_resnet")
    total = sum(parameter.numel() for parameter in model.parameters())
    rows = learning_table(model, stages(*STAGES), OptimizerSpec(lr=0.5), None)
    for epoch in (0, 2, 3):
        assert sum(row.num_parameters for row in rows if row.from_epoch == epoch) == total
    learning = {(row.from_epoch, row.block): row.lr for row in rows if row.lr is not None}
    assert {key: lr for key, lr in learning.items() if key[0] < 3} == {
        (0, "fc"): 0.5, (2, "layer4"): 0.05, (2, "fc"): 0.5
    }  # fmt: skip
    assert sum(row.num_learning for row in rows if row.from_epoch == 3) == total
    assert LearningRow(0, "conv1", 1234, 0, None, None).cells() == ["0", "conv1", "1,234", "0", "frozen", ""]


def test_the_table_counts_low_rank_updates() -> None:
    model = build("test_vit")
    rows = learning_table(model, UpdateOptions(lora={}).stages, OptimizerSpec(lr=0.5), LoRA(rank=2))
    adapted = [row for row in rows if row.block.startswith("blocks.")]
    width = model.embed_dim
    assert {row.num_learning for row in adapted} == {2 * (width + 3 * width) + 2 * (width + width)}
    assert {row.lr for row in adapted} == {0.5}
    assert {row.block for row in rows if row.lr is None} == {"(outside blocks)", "patch_embed", "norm"}
