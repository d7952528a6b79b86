"""Tiny networks with the heads that classifiers have."""

from __future__ import annotations

import torch
from lightwell.models.explain.cam.recording import Recording
from torch import nn


class Pooled(nn.Module):
    """Convolutions, average pooling, a linear layer."""

    def __init__(self, classes: int = 4, channels: int = 6) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(4, channels, 3, stride=2, padding=1), nn.ReLU())
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.last(self.first(x)).mean((2, 3)))


class Clipped(Pooled):
    """The same with an upper limit on the activations, above those of ordinary images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.last(self.first(x)).clamp_max(20).mean((2, 3)))


class Flattened(Pooled):
    """A hidden layer on the flattened map of images of 16 pixels, as in AlexNet and VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(6 * 64, 10)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.hidden(self.last(self.first(x)).flatten(1)).relu())


class Signed(Flattened):
    """Activations of both signs, as in ConvNeXt and transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.GELU())


class Segments(nn.Module):
    """Logits for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU())
        self.out = nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.out(self.body(x)), size=x.shape[2:], mode="bilinear")


def tiny(kind: type[nn.Module]) -> nn.Module:
    """Return a seeded network in eval mode, with running statistics that are not trivial."""
    torch.manual_seed(0)
    model = kind()
    model(images(8, seed=9))
    return model.eval()


def images(num: int = 3, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(seed))


def mean_activation(recording: Recording, classes: torch.Tensor) -> torch.Tensor:
    """A method of a plug-in."""
    return recording.activations_nchw.mean(1)
