"""Learning rate and weight decay of every parameter, against timm's."""

from __future__ import annotations

import pytest
import torch
from lightwell.models.training.optim import OptimizerSpec
from lightwell.models.training.optimization.param_groups import parameter_rates
from lightwell.models.training.optimization.unfreezing import set_trainable
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.errors import ModelError, PlanError
from timm.optim import param_groups_layer_decay, param_groups_weight_decay


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    return build_model(ModelSpec(name="timm:test_resnet", weights="none", num_classes=2))


@pytest.fixture(scope="module")
def vit() -> torch.nn.Module:
    return build_model(ModelSpec(name="timm:test_vit", weights="none", num_classes=2))


def by_name(model: torch.nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    """Return rate and weight decay of every parameter, from groups with a scale of the rate as timm makes them."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (pytest.approx(group.get("lr_scale", 1.0)), group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def ours(model: torch.nn.Module, **keys: object) -> dict[str, tuple[float, float]]:
    spec = OptimizerSpec(**{"weight_decay": 0.05, **keys})
    return {rate.name: (rate.lr_mult, rate.weight_decay) for rate in parameter_rates(model, spec)}


def test_layer_decay_is_timms(vit: torch.nn.Module) -> None:
    set_trainable(vit, "all")
    theirs = param_groups_layer_decay(
        vit, weight_decay=0.05, no_weight_decay_list=vit.no_weight_decay(), layer_decay=0.7
    )
    assert ours(vit, layer_decay=0.7, decay_1d=False) == by_name(vit, theirs)


def test_no_decay_on_biases_and_norms_is_timms(resnet: torch.nn.Module) -> None:
    set_trainable(resnet, "all")
    theirs = param_groups_weight_decay(resnet, weight_decay=0.05)
    assert ours(resnet, backbone_lr_mult=1, decay_1d=False) == by_name(resnet, theirs)


def test_by_default_there_are_two_groups_in_the_order_of_older_checkpoints(resnet: torch.nn.Module) -> None:
    set_trainable(resnet, "layer4")
    spec = OptimizerSpec(lr=0.2, backbone_lr_mult=0.25)
    head = list(resnet.fc.parameters())
    learning = [each for each in resnet.parameters() if each.requires_grad]
    backbone = [each for each in learning if all(each is not one for one in head)]
    before, now = spec.build(head, backbone), spec.build_for(resnet)
    ids = [[[id(p) for p in group["params"]] for group in each.param_groups] for each in (before, now)]
    assert ids[0] == ids[1]
    for a, b in zip(before.param_groups, now.param_groups, strict=True):
        assert {**a, "params": None} == {**b, "params": None}


def test_blocks_have_the_multiplier_of_the_last_named_one(resnet: torch.nn.Module) -> None:
    set_trainable(resnet, "all")
    rates = ours(resnet, backbone_lr_mult=0.01, lr_mults={"layer2": 0.1, "layer4": 0.5})
    blocks = {name.partition(".")[0]: rate for name, (rate, _) in rates.items()}
    assert blocks == {
        "conv1": 0.01, "bn1": 0.01, "layer1": 0.01, "layer2": 0.1, "layer3": 0.1, "layer4": 0.5, "fc": 1.0
    }  # fmt: skip


def test_the_head_has_the_rate_lr_and_comes_first(vit: torch.nn.Module) -> None:
    set_trainable(vit, "all")
    rates = ours(vit, layer_decay=0.5)
    assert [*rates][:2] == ["head.weight", "head.bias"]
    assert rates["head.weight"][0] == 1


def test_what_cannot_be_meant_is_refused(resnet: torch.nn.Module) -> None:
    with pytest.raises(PlanError, match="layer_decay: expected no other multiplier beside it, got lr_mults"):
        OptimizerSpec(layer_decay=0.7, lr_mults={"layer4": 1})
    with pytest.raises(ModelError, match=r"lr_mults: expected a block of ResNet, got 'layer9'; did you mean"):
        parameter_rates(resnet, OptimizerSpec(lr_mults={"layer9": 1}))
