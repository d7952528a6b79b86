"""Probes of features: nearest neighbours, logistic regression, and many linear heads trained together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch

from ...pipeline.rng import derive_seed, numpy_generator

CHUNK_ROWS = 1024
MOMENTUM = 0.9


@dataclass(frozen=True)
class Standardizer:
    """Mean and scale of training features, so that all columns weigh alike."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Measure features, shape (N, D); a constant column has scale 1."""
        scale = features.std(axis=0)
        return cls(features.mean(axis=0), np.where(scale > 1e-6 * (1 + np.abs(features).max()), scale, 1.0))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Standardize features."""
        return np.asarray((features - self.mean) / self.scale)


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier of raw features."""

    method: str
    options: Mapping[str, Any]
    weight: np.ndarray
    """float64, shape (classes, D)."""
    bias: np.ndarray

    @classmethod
    def unstandardized(
        cls, method: str, options: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray, by: Standardizer
    ) -> Self:
        """Build the head of raw features from one of standardized features."""
        raw = weight / by.scale
        return cls(method, options, raw, bias - raw @ by.mean)

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return log-probabilities, shape (N, classes)."""
        return log_softmax(features @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Neighbours:
    """k nearest neighbours by cosine similarity, votes weighted by exp(similarity / temperature) (Wu et al., CVPR 2018)."""

    features: np.ndarray
    """Of the training images, float32, shape (N, D)."""
    labels: np.ndarray
    num_classes: int
    k: int = 20
    temperature: float = 0.07
    method: str = "knn"

    @property
    def options(self) -> Mapping[str, Any]:
        """Number of neighbours and temperature."""
        return {"k": self.k, "temperature": self.temperature}

    def log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Return logarithms of the shares of votes, shape (N, classes)."""
        known = torch.nn.functional.normalize(torch.from_numpy(self.features).float())
        votes_of = torch.nn.functional.one_hot(torch.from_numpy(self.labels), self.num_classes).double()
        found = []
        queries = torch.from_numpy(features).float()
        for first in range(0, len(queries), CHUNK_ROWS):
            rows = queries[first : first + CHUNK_ROWS]
            similar, nearest = (torch.nn.functional.normalize(rows) @ known.T).topk(
                min(self.k, len(known)), dim=1
            )
            weights = ((similar.double() - 1) / self.temperature).exp()
            votes = (weights[:, :, None] * votes_of[nearest]).sum(dim=1)
            found.append((votes / votes.sum(dim=1, keepdim=True)).clamp_min(1e-12).log())
        return torch.cat(found).numpy()


Probe = LinearHead | Neighbours


def logistic_heads(
    features: np.ndarray, labels: np.ndarray, num_classes: int, strengths: Sequence[float]
) -> Iterator[LinearHead]:
    """Fit logistic regressions with L2 penalty (scikit-learn, L-BFGS) of standardized features.

    Args:
        features: float, shape (N, D).
        labels: of every class at least one.
        num_classes: number of classes.
        strengths: inverse strengths of the penalty, scikit-learn's ``C``.
    """
    from sklearn.linear_model import LogisticRegression

    scaler = Standardizer.of(features)
    standardized = scaler(features)
    for strength in strengths:
        fitted = LogisticRegression(C=strength, max_iter=2000).fit(standardized, labels)
        weight, bias = fitted.coef_, fitted.intercept_
        if num_classes == 2:  # scikit-learn has one row for class 1
            weight, bias = np.vstack([np.zeros_like(weight), weight]), np.array([0.0, bias[0]])
        yield LinearHead.unstandardized("logistic", {"C": strength}, weight, bias, scaler)


@dataclass(frozen=True)
class Grid:
    """Learning rates and weight decays of linear heads, each pair a head; all learn from the same batches."""

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-2)
    epochs: int = 100
    batch_size: int = 256
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def heads(self, features: np.ndarray, labels: np.ndarray, num_classes: int) -> Iterator[LinearHead]:
        """Train all heads with SGD, momentum and a cosine schedule; yields those that did not diverge."""
        scaler = Standardizer.of(features)
        inputs = torch.from_numpy(scaler(features)).float().to(self.device)
        targets = torch.from_numpy(labels).to(self.device)
        pairs = [(rate, decay) for rate in self.rates for decay in self.weight_decays]
        rates, decays = (
            torch.tensor(column, device=self.device)[:, None, None] for column in zip(*pairs, strict=True)
        )
        weights = torch.zeros(len(pairs), num_classes, inputs.shape[1], device=self.device)
        biases = torch.zeros(len(pairs), num_classes, 1, device=self.device)
        momenta = [torch.zeros_like(weights), torch.zeros_like(biases)]
        steps_per_epoch = -(-len(inputs) // self.batch_size)
        for step in range(self.epochs * steps_per_epoch):
            epoch, number = divmod(step, steps_per_epoch)
            if number == 0:
                seed = derive_seed("probe", self.seed, epoch, "")
                order = torch.from_numpy(numpy_generator(seed).permutation(len(inputs))).to(self.device)
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            batch, wanted = inputs[rows], targets[rows]
            errors = (weights @ batch.T + biases).softmax(dim=1)  # heads, classes, rows
            errors[:, wanted, torch.arange(len(rows), device=self.device)] -= 1
            errors /= len(rows)
            gradients = errors @ batch + decays * weights, errors.sum(dim=2, keepdim=True)
            factor = 0.5 * (1 + np.cos(np.pi * step / (self.epochs * steps_per_epoch)))
            for values, momentum, gradient in zip((weights, biases), momenta, gradients, strict=True):
                momentum.mul_(MOMENTUM).add_(gradient)
                values.sub_(rates * factor * momentum)
        for (rate, decay), weight, bias in zip(
            pairs, weights.cpu().double(), biases.cpu().double(), strict=True
        ):
            if bool(weight.isfinite().all()):
                options = {"rate": rate, "weight_decay": decay}
                yield LinearHead.unstandardized("linear", options, weight.numpy(), bias[:, 0].numpy(), scaler)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Return the logarithms of softmax probabilities."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
