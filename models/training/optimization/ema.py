"""Exponential moving average of a model's weights (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ....pipeline.errors import ModelError
from .options import EMA


class AveragedWeights:
    """Averages of a model's floating-point parameters and buffers; integer buffers stay those of the model.

    Args:
        model: on its device. Only ``applied`` changes it, and restores it.
        ema: the decay.
    """

    def __init__(self, model: torch.nn.Module, ema: EMA) -> None:
        self._model, self._ema = model, ema
        self._averages = {name: tensor.detach().clone() for name, tensor in self._floating().items()}

    def _floating(self) -> dict[str, torch.Tensor]:
        return {
            name: tensor for name, tensor in self._model.state_dict().items() if tensor.is_floating_point()
        }

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Move the averages towards the model's weights.

        Args:
            num_updates: updates of the weights before the last one.
        """
        weight = 1.0 - self._ema.decay_after(num_updates)
        current = self._floating()
        averages = [self._averages[name] for name in current]
        torch._foreach_lerp_(averages, list(current.values()), weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the model's weights for the averages within the context."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, tensor in self._floating().items():
            kept = tensor.detach().clone()
            tensor.copy_(self._averages[name])
            self._averages[name] = kept

    def state(self) -> dict[str, torch.Tensor]:
        """Return the averages by the names of the model's weights."""
        return dict(self._averages)

    def load(self, averages: Mapping[str, torch.Tensor]) -> None:
        """Restore the averages of a checkpoint.

        Raises:
            ModelError: names or shapes differ from the model's, or a value is not finite.
        """
        shapes = {name: tensor.shape for name, tensor in self._averages.items()}
        if {name: tensor.shape for name, tensor in averages.items()} != shapes:
            raise ModelError("checkpoint: expected averages of all weights, got other names or shapes; "
                             "restore it from a copy, or delete it and train again")  # fmt: skip
        if not all(bool(tensor.isfinite().all()) for tensor in averages.values()):
            raise ModelError("checkpoint: expected averages that are finite, got NaN or infinity; "
                             "restore it from a copy, or delete it and train again")  # fmt: skip
        for name, tensor in averages.items():
            self._averages[name].copy_(tensor)
