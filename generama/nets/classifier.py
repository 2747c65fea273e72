"""A small convolutional classifier whose penultimate layer serves as features (LeCun et al. 1998, with batch norm)."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """Images (B, C, H, W) from 8 to 64 pixels -> `features` (B, width), and class logits (B, classes) from them.

    From 24 pixels on the first layer halves the size; stages then halve it until 4 to 7 pixels a side are left.
    """

    def __init__(self, channels: int, size: int, classes: int, width: int = 64) -> None:
        super().__init__()
        first, side = (2, (size + 1) // 2) if size >= 24 else (1, size)
        stages = [nn.Conv2d(channels, 32, 5, first, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        inside = 32
        while side > 7:
            stages += [nn.Conv2d(inside, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
            inside, side = 64, side // 2
        stages += [nn.Conv2d(inside, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        self.stages = nn.Sequential(*stages)
        self.features_out = nn.Sequential(nn.Flatten(), nn.Linear(64 * side * side, width), nn.BatchNorm1d(width))
        self.logits_out = nn.Sequential(nn.ReLU(), nn.Linear(width, classes))

    def features(self, images: Tensor) -> Tensor:
        """The penultimate layer before its ReLU, (B, width): nearly Gaussian, as a Frechet distance wants it."""
        return self.features_out(self.stages(images))

    def logits(self, features: Tensor) -> Tensor:
        """Class logits (B, classes) from `features`."""
        return self.logits_out(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.features(images))
