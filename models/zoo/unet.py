"""The U-Net of Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

As published: four levels of two 3x3 convolutions with ReLU, 2x2 max pooling, channels that double from 64 to 1024, dropout
at the end of the contracting path, 2x2 up-convolutions, skip connections by concatenation, a 1x1 convolution, and weights
drawn from a normal distribution of standard deviation sqrt(2 / N). Convolutions are padded, which the paper's are not, so
that the output is as large as the picture and nothing is cropped. There is no batch normalisation.
"""

from __future__ import annotations

import torch
from torch import nn

NUM_LEVELS = 4
STRIDE = 2**NUM_LEVELS
"""Height and width of the images are multiples of this."""


class UNet(nn.Module):
    """The U-Net of 2015.

    Args:
        num_classes: output channels.
        width: channels of the first level, 64 as published; those below it have 2, 4, 8 and 16 times as many.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int, *, width: int = 64, in_channels: int = 3) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(NUM_LEVELS + 1)]
        before = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(_convolutions(*pair) for pair in zip(before, widths, strict=True))
        self.dropout = nn.Dropout(0.5)
        deeper = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, above, 2, stride=2) for deep, above in deeper)
        self.merge = nn.ModuleList(_convolutions(2 * above, above) for _, above in deeper)
        self.head = nn.Conv2d(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores (N, classes, H, W) of images (N, C, H, W)."""
        skipped: list[torch.Tensor] = []
        found = images
        for level, block in enumerate(self.down):
            found = block(found if level == 0 else nn.functional.max_pool2d(found, 2))
            skipped.append(found)
        found = self.dropout(skipped.pop())
        for grow, merge in zip(self.up, self.merge, strict=True):
            found = merge(torch.cat([skipped.pop(), grow(found)], dim=1))
        scores: torch.Tensor = self.head(found)
        return scores


def _convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(inplace=True),
    )
