"""Which parts of a model learn: name its blocks, freeze those before one, train the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...pipeline.errors import ModelError, did_you_mean
from .build import head_module, head_names

if TYPE_CHECKING:
    from torch import nn


def blocks(model: nn.Module) -> tuple[str, ...]:
    """List the parts that fine-tuning may start from, in the order of the forward pass, head last.

    A part is a child of the model that has parameters. A child is opened into its own children where it is
    a container, holds most of the parameters or contains the head, unless its name carries a number, which
    marks a
    stage: so ``layer1`` .. ``layer4`` for a ResNet, ``conv_stem``, ``blocks.0`` .. ``classifier`` for an
    EfficientNet, ``features.0`` .. ``classifier.6`` for a VGG. Order is that of definition.
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
    """Let the named block and what follows it learn, and freeze everything before.

    Parameters outside any block (class tokens, position tables) are frozen unless the first block is named.

    Args:
        model: its ``requires_grad`` flags are set, nothing else.
        block: one of ``blocks(model)``; None lets only the head learn.

    Raises:
        ModelError: no such block; lists all and the nearest.
    """
    names = blocks(model)
    if block is None:
        trainable: tuple[str, ...] = head_names(model) or (head_module(model)[0],)
    elif block in names:
        trainable = names[names.index(block) :]
    else:
        raise ModelError(
            f"freeze before: expected a block of {type(model).__name__}, got {block!r}; "
            f"{did_you_mean(block, names)} (blocks: {', '.join(names)})"
        )
    model.requires_grad_(block is not None and block == names[0])
    for name in trainable:
        model.get_submodule(name).requires_grad_(True)


def train_mode(model: nn.Module) -> None:
    """Put what learns into training mode and keep what is frozen in eval.

    So a frozen trunk is a fixed function: its BatchNorm uses and keeps its statistics, its dropout is off.
    A layer without parameters follows its frozen parent, else the next sibling that has parameters, else
    the last one: the dropout before a learning head works.
    """
    model.train(_is_trainable(model))
    _set_children(model)


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
