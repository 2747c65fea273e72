"""Rectified flow on 8x8 digits in one file (Liu et al. 2022): learn the velocity of straight lines, then follow it.

Run: python examples/minimal_rectified_flow.py [PATH] [--steps 1500]
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Velocity(nn.Module):
    """v(x, t): the image, the time and the class in; a velocity per pixel out."""

    def __init__(self, pixels: int = 64, width: int = 384, classes: int = 10) -> None:
        super().__init__()
        self.enter = nn.Linear(pixels + 2, width)
        self.label = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(3)
        )
        self.leave = nn.Linear(width, pixels)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """(B, 64), (B, 1), (B,) -> (B, 64)."""
        h = self.enter(torch.cat([x, t.cos(), t.sin()], dim=1)) + self.label(label)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)


def loss(v: Velocity, x: Tensor, label: Tensor) -> Tensor:
    """|v(x_t, t) - (z - x)|^2 with x_t = (1 - t) x + t z."""
    t = torch.rand(len(x), 1)
    z = torch.randn_like(x)
    x_t = (1 - t) * x + t * z
    return (v(x_t, t, label) - (z - x)).square().mean()


@torch.no_grad()
def sample(v: Velocity, label: Tensor, steps: int = 50) -> Tensor:
    """Euler's method from noise at t = 1 to an image at t = 0."""
    x = torch.randn(len(label), 64)
    for k in range(steps, 0, -1):
        t = torch.full((len(label), 1), k / steps)
        x = x - v(x, t, label) / steps
    return x.clamp(-1, 1)


def main() -> None:
    """Train, sample ten of each class, save the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="minimal_rectified_flow.png", help="where the grid of samples goes")
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()

    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 8 - 1  # (1797, 64) in [-1, 1]
    labels = torch.tensor(classes)
    v = Velocity()
    adam = torch.optim.AdamW(v.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, args.steps)
    for step in range(args.steps):
        chosen = torch.randint(len(images), (128,))
        error = loss(v, images[chosen], labels[chosen])
        adam.zero_grad()
        error.backward()
        adam.step()
        decay.step()
        if step % 250 == 0:
            print(f"step {step}: loss {error.item():.3f}")

    made = sample(v, torch.arange(10).repeat(10))  # a class a column
    tiles = nn.functional.pad(made.view(10, 10, 8, 8), (1, 1, 1, 1), value=0.0)
    grid = tiles.permute(0, 2, 1, 3).reshape(100, 100)
    pixels = ((grid + 1) * 127.5).byte().numpy()
    Image.fromarray(pixels).resize((500, 500), Image.Resampling.NEAREST).save(args.path)
    print(f"wrote {args.path}")


if __name__ == "__main__":
    main()
