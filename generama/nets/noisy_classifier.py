"""A classifier that is shown noisy images and told how noisy they are (Dhariwal and Nichol 2021, section 4).

The downsampling half of the small U-Net; the paper pools its last map by attention, this one by its mean.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from generama.core import Spec
from generama.nets.embeddings import sinusoids
from generama.nets.unet import ResidualBlock, halvings

MULTIPLES = (1, 2, 4)  # of the width, at each halving of the size


class NoisyClassifier(nn.Module):
    """Images and times to class logits; `width` channels at full resolution. Points are images of one pixel."""

    def __init__(self, width: int, spec: Spec) -> None:
        super().__init__()
        widths = [width * multiple for multiple in MULTIPLES[: 1 + halvings(spec.size)]]
        embedding = 4 * width
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.enter = nn.Conv2d(spec.channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            ResidualBlock(inner, outer, embedding) for inner, outer in zip([width, *widths], widths, strict=False)
        )
        self.leave = nn.Linear(widths[-1], spec.classes)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, C, H, W) images, (B,) times in 0..1000 -> (B, classes)."""
        embedding = functional.silu(self.time(sinusoids(time, self.width)))
        h = self.enter(x)
        for level, block in enumerate(self.down):
            h = block(functional.avg_pool2d(h, 2) if level else h, embedding)
        return self.leave(functional.silu(h).mean((2, 3)))

    def log_probability(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """log p(label | noisy image), (B,), of labels (B,)."""
        return -functional.cross_entropy(self(x, time), label, reduction="none")
