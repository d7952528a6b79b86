"""The network inside a wrapper: compiled, or prepared for several devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ....pipeline.errors import ModelError

_PREFIXES = ("_orig_mod.", "module.")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside ``torch.compile``, DataParallel and DistributedDataParallel, which shares its weights.

    Raises:
        ModelError: the model is a TorchScript or exported module, whose layers cannot be observed.
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, parallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "model: expected a module whose layers can be observed, got a TorchScript module; explain the module that it "
            "was made from"
        )
    return model


def unwrapped_name(name: str) -> str:
    """Return the dotted name of a layer without the prefixes that wrappers add."""
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run a model as written: what ``Module.compile`` compiled in place is set aside, since it ignores new hooks."""
    compiled: list[tuple[nn.Module, Any]] = [
        (module, call)
        for module in model.modules()
        if (call := getattr(module, "_compiled_call_impl", None)) is not None
    ]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call
