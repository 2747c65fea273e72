"""Denoising diffusion on 8x8 digits in one file (Ho et al. 2020): learn the noise, then take it away step by step.

Run: python examples/minimal_ddpm.py [PATH] [--steps 1500]
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

T = 1000
beta = torch.linspace(1e-4, 0.02, T)
alpha = 1 - beta
abar = alpha.cumprod(0)


class Noise(nn.Module):
    """eps(x, t): the noisy image, the step and the class in; the noise in each pixel out."""

    def __init__(self, pixels: int = 64, width: int = 384, classes: int = 10) -> None:
        super().__init__()
        self.enter = nn.Linear(pixels + 32, width)
        self.label = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(3)
        )
        self.leave = nn.Linear(width, pixels)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """(B, 64), (B,), (B,) -> (B, 64)."""
        angle = t[:, None] * 10_000 ** (-torch.arange(16) / 16)  # sinusoidal embedding of the step
        h = self.enter(torch.cat([x, angle.cos(), angle.sin()], dim=1)) + self.label(label)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)


def loss(eps: Noise, x0: Tensor, label: Tensor) -> Tensor:
    """Algorithm 1: |noise - eps(sqrt(abar) x0 + sqrt(1 - abar) noise, t)|^2."""
    t = torch.randint(T, (len(x0),))
    noise = torch.randn_like(x0)
    x_t = abar[t, None].sqrt() * x0 + (1 - abar[t, None]).sqrt() * noise
    return (noise - eps(x_t, t, label)).square().mean()


@torch.no_grad()
def sample(eps: Noise, label: Tensor) -> Tensor:
    """Algorithm 2: from pure noise, one denoising step for each t."""
    x = torch.randn(len(label), 64)
    for t in reversed(range(T)):
        z = torch.randn_like(x) if t > 0 else torch.zeros_like(x)
        noise = eps(x, torch.full((len(label),), t), label)
        x = (x - beta[t] / (1 - abar[t]).sqrt() * noise) / alpha[t].sqrt() + beta[t].sqrt() * z
    return x.clamp(-1, 1)


def main() -> None:
    """Train, sample ten of each class, save the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="minimal_ddpm.png", help="where the grid of samples goes")
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()

    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32) / 8 - 1  # (1797, 64) in [-1, 1]
    labels = torch.tensor(classes)
    eps = Noise()
    adam = torch.optim.AdamW(eps.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, args.steps)
    for step in range(args.steps):
        chosen = torch.randint(len(images), (128,))
        error = loss(eps, images[chosen], labels[chosen])
        adam.zero_grad()
        error.backward()
        adam.step()
        decay.step()
        if step % 250 == 0:
            print(f"step {step}: loss {error.item():.3f}")

    made = sample(eps, torch.arange(10).repeat(10))  # a class a column
    tiles = nn.functional.pad(made.view(10, 10, 8, 8), (1, 1, 1, 1), value=0.0)
    grid = tiles.permute(0, 2, 1, 3).reshape(100, 100)
    pixels = ((grid + 1) * 127.5).byte().numpy()
    Image.fromarray(pixels).resize((500, 500), Image.Resampling.NEAREST).save(args.path)
    print(f"wrote {args.path}")


if __name__ == "__main__":
    main()
