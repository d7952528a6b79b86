"""Low-rank updates of attention projections."""

from __future__ import annotations

import copy

import pytest
import torch
from lightwell.models.training.optimization.lora import add_lora, merge_lora, remove_lora
from lightwell.models.training.optimization.options import LoRA
from lightwell.models.training.optimization.unfreezing import set_trainable
from lightwell.models.zoo.build import ModelSpec, build_model
from lightwell.pipeline.errors import ModelError
from torch import nn

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def build() -> nn.Module:
    model = build_model(ModelSpec(name="timm:test_vit", weights="none", num_classes=2))
    set_trainable(model, "head")
    return model


class TorchAttention(nn.Module):
    """Attention as torchvision's transformers use it, whose projection is a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(dim=1))


def learn(model: nn.Module, inputs: torch.Tensor) -> None:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), torch.tensor([0, 1])).backward()
        optimizer.step()


def test_only_the_head_and_the_low_rank_matrices_learn() -> None:
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = model.eval()(IMAGES)
    add_lora(model, LoRA(rank=2))
    assert torch.equal(model(IMAGES), scores)  # nothing changes until something is learned
    learn(model, IMAGES)
    merged = merge_lora(model.state_dict())
    assert merged.keys() == before.keys()
    changed = {name for name in before if not torch.equal(merged[name], before[name])}
    blocks = len(model.blocks)
    attention = {f"blocks.{i}.attn.{part}.weight" for i in range(blocks) for part in ("qkv", "proj")}
    assert changed == {"head.weight", "head.bias", *attention}


@pytest.mark.parametrize("kind", ["timm", "torch"])
def test_merged_weights_give_the_scores_of_the_adapted_network_in_the_plain_one(kind: str) -> None:
    model = build() if kind == "timm" else TorchAttention()
    inputs = IMAGES if kind == "timm" else torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    plain = copy.deepcopy(model)
    add_lora(model, LoRA(rank=2))
    learn(model, inputs)
    plain.load_state_dict(merge_lora(model.state_dict()))
    scores = model.eval()(inputs)
    assert torch.equal(plain.eval()(inputs), scores)
    remove_lora(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not torch.equal(model.eval()(inputs), scores)


def test_a_network_without_attention_is_refused() -> None:
    model = build_model(ModelSpec(name="timm:test_resnet", weights="none", num_classes=2))
    with pytest.raises(ModelError, match="lora: expected a network with attention, got ResNet without it"):
        add_lora(model, LoRA())
