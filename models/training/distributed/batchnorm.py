"""Batch normalisation over the rows of all ranks, on any device; torch's SyncBatchNorm supports GPUs only.

Ioffe and Szegedy, "Batch Normalization", ICML 2015. Padding rows are excluded from the statistics. The variance is
computed in two passes, which avoids cancellation where the mean is large.
"""

from __future__ import annotations

from typing import Any

import torch

from .context import DistributedContext


class GlobalBatchNorm(torch.autograd.Function):
    """Normalises each channel (axis 1) by mean and variance over the rows and pixels of all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
        num_valid: int,
        dist: DistributedContext,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the normalised inputs, and per channel the mean, the biased variance and the number of values.

        Args:
            ctx: autograd context.
            inputs: shape (N, channels, ...).
            weight: shape (channels,).
            bias: shape (channels,).
            eps: added to the variance.
            num_valid: number of leading rows that are not padding.
            dist: ranks to reduce over.
        """
        precision = torch.promote_types(inputs.dtype, torch.float32)
        own = inputs[:num_valid].to(precision)
        axes = [axis for axis in range(inputs.dim()) if axis != 1]
        sums = own.new_empty(inputs.shape[1] + 1, dtype=torch.float64)
        sums[:-1] = own.sum(axes, dtype=torch.float64)
        sums[-1] = own.numel() // inputs.shape[1]
        sums = dist.all_reduce(sums)
        count = sums[-1]
        mean = (sums[:-1] / count).to(precision)
        squares = (own - per_channel(mean, inputs)).square_().sum(axes, dtype=torch.float64)
        var = (dist.all_reduce(squares) / count).to(precision)
        scale = torch.rsqrt(var + eps)
        ctx.save_for_backward(inputs, weight, mean, scale, count)
        ctx.num_valid, ctx.dist, ctx.axes = num_valid, dist, axes
        gain = scale if weight is None else scale * weight
        out = (inputs - per_channel(mean, inputs)) * per_channel(gain, inputs)
        out = out if bias is None else out + per_channel(bias, inputs)
        ctx.mark_non_differentiable(mean, var, count)
        return out.to(inputs.dtype), mean, var, count.float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of inputs, weight and bias; the latter two are this rank's contribution."""
        inputs, weight, mean, scale, count = ctx.saved_tensors
        own, grad_own = inputs[: ctx.num_valid], grad[: ctx.num_valid]
        normed = (own - per_channel(mean, inputs)) * per_channel(scale, inputs)
        grad_bias = grad_own.sum(ctx.axes, dtype=torch.float64)
        grad_weight = (grad_own * normed).sum(ctx.axes, dtype=torch.float64)
        both = ctx.dist.all_reduce(torch.stack([grad_bias, grad_weight])) / count
        gain = per_channel(scale if weight is None else scale * weight, inputs)
        grad_inputs = grad * gain
        means = both.to(grad.dtype)
        grad_inputs[: ctx.num_valid] -= gain * (
            per_channel(means[0], inputs) + normed * per_channel(means[1], inputs)
        )
        return (
            grad_inputs,
            None if weight is None else grad_weight.to(weight.dtype),
            None if weight is None else grad_bias.to(weight.dtype),
            None,
            None,
            None,
        )


def per_channel(channels: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Reshape per-channel values to broadcast over the inputs."""
    return channels.view(1, -1, *(1,) * (inputs.dim() - 2))
