"""A generative adversarial network on 8x8 digits in one page (Goodfellow et al. 2014, "Generative Adversarial Nets").

    python examples/minimal_gan.py [digits.png] [--steps 4000]

Needs torch, scikit-learn and pillow; several seconds on one CPU core.
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

LATENT = 32


def make_generator() -> nn.Module:
    """G: noise z (B, 32) -> an image (B, 64) in [-1, 1]."""
    return nn.Sequential(
        nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 64), nn.Tanh()
    )


def make_discriminator() -> nn.Module:
    """D: an image (B, 64) -> a logit (B, 1), positive where the image looks real."""
    return nn.Sequential(
        nn.Linear(64, 256), nn.LeakyReLU(0.2), nn.Linear(256, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1)
    )


def train(generator: nn.Module, discriminator: nn.Module, images: Tensor, steps: int, batch: int = 64) -> None:
    """Algorithm 1 with k = 1, the non-saturating generator loss, real labels smoothed to 0.9, and Adam.

    With D = sigmoid(logit): -log D = softplus(-logit) and -log(1 - D) = softplus(logit).
    """
    optimiser_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    optimiser_d = torch.optim.Adam(discriminator.parameters(), lr=1e-3, betas=(0.5, 0.999))
    for step in range(1, steps + 1):
        # Ascend the discriminator: real images up, generated ones down.
        real = discriminator(images[torch.randint(len(images), (batch,))])
        fake = discriminator(generator(torch.randn(batch, LATENT)).detach())
        loss_d = (0.9 * softplus(-real) + 0.1 * softplus(real)).mean() + softplus(fake).mean()
        optimiser_d.zero_grad()
        loss_d.backward()
        optimiser_d.step()

        # Ascend the generator: make the discriminator take generated images for real.
        loss_g = softplus(-discriminator(generator(torch.randn(batch, LATENT)))).mean()
        optimiser_g.zero_grad()
        loss_g.backward()
        optimiser_g.step()

        if step % 500 == 0 or step == steps:
            sure = (real > 0).float().mean().item()
            print(f"step {step:5d}   D {loss_d.item():.3f}   G {loss_g.item():.3f}   real taken for real {sure:.0%}")


def save_grid(images: Tensor, path: str, zoom: int = 6) -> None:
    """64 images (64, 64) in [-1, 1] as an 8x8 grid of 8x8 pictures."""
    framed = pad(images.view(8, 8, 8, 8), (1, 1, 1, 1), value=-0.4)
    grid = framed.permute(0, 2, 1, 3).reshape(80, 80).add(1).mul(127.5).round().byte()
    Image.fromarray(grid.numpy()).resize((80 * zoom, 80 * zoom), Image.Resampling.NEAREST).save(path)
    print(f"wrote {path}")


def main() -> None:
    """Train on the digits and draw 64 new ones."""
    parser = argparse.ArgumentParser(description="A generative adversarial network on 8x8 digits.")
    parser.add_argument("path", nargs="?", default="minimal_gan.png", help="where the grid of samples goes")
    parser.add_argument("--steps", type=int, default=4000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1  # pyright: ignore
    generator, discriminator = make_generator(), make_discriminator()
    train(generator, discriminator, images, arguments.steps)
    with torch.no_grad():
        save_grid(generator(torch.randn(64, LATENT)), arguments.path)


if __name__ == "__main__":
    main()
