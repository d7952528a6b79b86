"""The U-Net of Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

As published: four levels of two 3x3 convolutions with ReLU, 2x2 max pooling, channels that double from 64 to 1024, dropout
at the end of the contracting path, 2x2 up-convolutions, skip connections by concatenation, a 1x1 convolution, and weights
drawn from a normal distribution of standard deviation sqrt(2 / N). There is no batch normalisation.

The paper's convolutions are ``valid``: they have no padding, skip connections are cropped, and 572 x 572 pixels give scores of
the 388 x 388 in their middle. Its overlap-tile strategy (figure 2) gets those at the border by mirroring the image, which
``forward`` does, so that the output is as large as the image. Convolutions that are padded with zeros, ``same``, cost less.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Padding = Literal["same", "valid"]

NUM_LEVELS = 4
STRIDE = 2**NUM_LEVELS
"""With ``same``, height and width of the images are multiples of this."""
MARGIN = 92
"""Pixels at each border that ``valid`` convolutions need as context."""


class UNet(nn.Module):
    """The U-Net of 2015.

    Args:
        num_classes: output channels.
        width: channels of the first level, 64 as published; those below it have 2, 4, 8 and 16 times as many.
        in_channels: channels of the images.
        padding: of the convolutions.
    """

    def __init__(
        self, num_classes: int, *, width: int = 64, in_channels: int = 3, padding: Padding = "same"
    ) -> None:
        super().__init__()
        self.padding = padding
        pixels = 1 if padding == "same" else 0
        widths = [width * 2**level for level in range(NUM_LEVELS + 1)]
        before = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(_convolutions(*pair, pixels) for pair in zip(before, widths, strict=True))
        self.dropout = nn.Dropout(0.5)
        deeper = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, above, 2, stride=2) for deep, above in deeper)
        self.merge = nn.ModuleList(_convolutions(2 * above, above, pixels) for _, above in deeper)
        self.head = nn.Conv2d(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (N, classes, H, W) of images (N, C, H, W); ``valid`` needs more than 107 rows and columns."""
        if self.padding == "same":
            return self.scores(images)
        height, width = images.shape[2:]
        more_rows, more_columns = ((4 - side) % STRIDE for side in (height, width))
        sides = (MARGIN, MARGIN + more_columns, MARGIN, MARGIN + more_rows)
        return self.scores(nn.functional.pad(images, sides, mode="reflect"))[:, :, :height, :width]

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores of the pixels whose context lies inside the images: with ``valid`` without ``MARGIN`` at each border."""
        skipped: list[torch.Tensor] = []
        found = images
        for level, block in enumerate(self.down):
            found = block(found if level == 0 else nn.functional.max_pool2d(found, 2))
            skipped.append(found)
        found = self.dropout(skipped.pop())
        for grow, merge in zip(self.up, self.merge, strict=True):
            grown = grow(found)
            found = merge(torch.cat([_middle(skipped.pop(), grown), grown], dim=1))
        scores: torch.Tensor = self.head(found)
        return scores


def _middle(found: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Crop maps to the height and width of others, at equal distances from opposite borders."""
    (height, width), (rows, columns) = found.shape[2:], like.shape[2:]
    top, left = (height - rows) // 2, (width - columns) // 2
    return found[:, :, top : top + rows, left : left + columns]


def _convolutions(before: int, after: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=padding),
        nn.ReLU(inplace=True),
    )
