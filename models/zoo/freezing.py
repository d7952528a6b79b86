"""Layer freezing: list the blocks of a model, freeze those before a given block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...pipeline.errors import ModelError, did_you_mean
from .heads import head_module, head_names

if TYPE_CHECKING:
    from torch import nn


def blocks(model: nn.Module) -> tuple[str, ...]:
    """List the blocks that fine-tuning can start from, in order of definition, head last.

    A block is a child of the model with parameters. A child is replaced by its own children if it is a container, holds
    most of the parameters or contains the head, unless its name contains a digit, which marks a stage. So the blocks are
    ``layer1`` .. ``layer4`` for a ResNet, ``conv_stem``, ``blocks.0`` .. ``classifier`` for an EfficientNet, and
    ``features.0`` .. ``classifier.6`` for a VGG.
    """
    total = _num_parameters(model)
    return tuple(_parts(model, "", total / 2, head_module(model)[0]))


def _parts(module: nn.Module, prefix: str, half: float, head: str) -> Iterator[str]:
    from torch import nn

    for name, child in module.named_children():
        path = f"{prefix}{name}"
        count = _num_parameters(child)
        opened = (
            isinstance(child, nn.Sequential | nn.ModuleList) or count > half or head.startswith(f"{path}.")
        )
        is_stage = any(letter.isdigit() for letter in name)
        if opened and not is_stage and any(_num_parameters(part) for part in child.children()):
            yield from _parts(child, f"{path}.", half, head)
        elif count:
            yield path


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def freeze_before(model: nn.Module, block: str | None) -> None:
    """Make a block and all later ones trainable, and freeze everything before.

    Parameters outside any block (class tokens, position embeddings) are frozen unless the first block is given.

    Args:
        model: only its ``requires_grad`` flags are changed.
        block: one of ``blocks(model)``; None makes only the head trainable.

    Raises:
        ModelError: no such block; the message lists all blocks and the closest match.
    """
    names = blocks(model)
    if block is None:
        trainable: tuple[str, ...] = head_names(model) or (head_module(model)[0],)
    elif block in names:
        trainable = names[names.index(block) :]
    else:
        raise ModelError(
            f"fine_tune_from: expected a block of {type(model).__name__}, got {block!r}; "
            f"{did_you_mean(block, names)} (blocks: {', '.join(names)})"
        )
    model.requires_grad_(block is not None and block == names[0])
    for name in trainable:
        model.get_submodule(name).requires_grad_(True)


def train_mode(model: nn.Module) -> None:
    """Set trainable modules to training mode and frozen modules to eval mode.

    A frozen backbone is then a fixed function: BatchNorm uses its running statistics without updating them, and dropout
    is off. A layer without parameters follows its frozen parent, else the next sibling with parameters, else the last
    one, so that dropout before a trainable head is active.
    """
    model.train(_is_trainable(model))
    _set_children(model)


def freeze_batch_norm(model: nn.Module) -> None:
    """Set batch normalisation to eval mode: it uses its running statistics and keeps them; its weights may still learn."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _set_children(module: nn.Module) -> None:
    children = list(module.children())[::-1]
    following = next((_is_trainable(child) for child in children if _num_parameters(child)), False)
    for child in children:
        has_parameters = _num_parameters(child) > 0
        following = _is_trainable(child) if has_parameters else following
        child.train(following)
        if following and has_parameters:
            _set_children(child)


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
