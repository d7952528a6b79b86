import pytest
import torch
from lightwell.models.zoo.build import ModelSpec, build_model, head_module
from lightwell.models.zoo.freezing import blocks, freeze_before, train_mode
from lightwell.pipeline.errors import ModelError
from torch import nn


def net(name):
    return build_model(ModelSpec(name=name, weights="none", num_classes=3))


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("resnet18", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")),
        ("tf_efficientnet_lite0",
         ("conv_stem", "bn1", *(f"blocks.{i}" for i in range(7)), "conv_head", "bn2", "classifier")),
        ("alexnet", (*(f"features.{i}" for i in (0, 3, 6, 8, 10)), *(f"classifier.{i}" for i in (1, 4, 6)))),
        ("convnext_atto", ("stem.0", "stem.1", *(f"stages.{i}" for i in range(4)), "head.norm", "head.fc")),
        ("vit_tiny_patch16_224", ("patch_embed", *(f"blocks.{i}" for i in range(12)), "norm", "head")),
    ],
)  # fmt: skip
def test_blocks_of_known_models(name, wanted):
    assert blocks(net(name)) == wanted


@pytest.mark.parametrize(
    "name", ["resnet18", "googlenet", "squeezenet1_1", "densenet121", "mobilenetv3_small_050"]
)
def test_blocks_run_in_the_listed_order_and_hold_every_parameter(name):
    model = net(name)
    names = blocks(model)
    ran = []
    for each in names:
        model.get_submodule(each).register_forward_pre_hook(lambda *_, each=each: ran.append(each))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert tuple(ran) == names
    held = {f"{each}.{leaf}" for each in names for leaf, _ in model.get_submodule(each).named_parameters()}
    assert held == {leaf for leaf, _ in model.named_parameters()}
    assert head_module(model)[0] == names[-1]


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "alexnet"])
def test_without_a_block_only_the_head_is_trainable(name):
    model = net(name)
    freeze_before(model, None)
    head = head_module(model)[0]
    assert learning(model) == {f"{head}.weight", f"{head}.bias"}


def test_a_block_and_all_later_ones_are_trainable_whatever_was_frozen_before():
    model = net("resnet18")
    freeze_before(model, "layer4")
    assert {name.partition(".")[0] for name in learning(model)} == {"layer4", "fc"}
    freeze_before(model, "layer2")
    assert {name.partition(".")[0] for name in learning(model)} == {"layer2", "layer3", "layer4", "fc"}
    freeze_before(model, "conv1")
    assert len(learning(model)) == len(list(model.parameters()))


def test_tokens_and_position_embeddings_are_frozen_unless_all_is_trainable():
    model = net("vit_tiny_patch16_224")
    freeze_before(model, "blocks.0")
    assert not {"cls_token", "pos_embed"} & learning(model)
    freeze_before(model, "patch_embed")
    assert {"cls_token", "pos_embed"} <= learning(model)


def test_an_unknown_block_is_refused_with_the_closest_match_and_all_blocks():
    with pytest.raises(ModelError, match=r"did you mean 'layer4'.*blocks: conv1, bn1, layer1"):
        freeze_before(net("resnet18"), "layer_4")


def test_a_frozen_backbone_is_a_fixed_function_while_the_head_trains():
    model = net("tf_efficientnet_lite0")
    freeze_before(model, None)
    train_mode(model)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    x = torch.randn(2, 3, 64, 64)
    first, again = (model.forward_features(x) for _ in range(2))
    assert torch.equal(first, again)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert model.classifier.training


def test_batch_norm_is_in_training_mode_only_in_trainable_blocks():
    model = net("resnet18")
    freeze_before(model, "layer4")
    train_mode(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == name.startswith("layer4"), name


def test_dropout_is_active_only_before_a_trainable_layer():
    model = net("alexnet")
    freeze_before(model, "classifier.4")
    train_mode(model)
    assert [model.classifier[i].training for i in range(7)] == [False, False, True, True, True, True, True]
    assert not any(module.training for module in model.features.modules())


def test_layers_without_parameters_inside_containers_follow_too():
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Dropout()), nn.Linear(2, 2), nn.Dropout()
    )
    freeze_before(model, None)
    train_mode(model)
    assert [module.training for module in model.modules()] == [True, False, True, True, True, True, True]
    model.requires_grad_(False)
    train_mode(model)
    assert not any(module.training for module in model.modules())
