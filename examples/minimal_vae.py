"""A variational autoencoder on 8x8 digits in one page (Kingma & Welling 2014, "Auto-Encoding Variational Bayes").

    python examples/minimal_vae.py [digits.png] [--steps 2000]

Needs torch, scikit-learn and pillow; a few seconds on one CPU core.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

LATENT = 8


class VAE(nn.Module):
    """q(z|x) = N(mean, exp(log_var)), the encoder; p(x|z) = Bernoulli(sigmoid(logits)), the decoder; p(z) = N(0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, 256), nn.ReLU(), nn.Linear(256, 64))

    def loss(self, x: Tensor) -> Tensor:
        """Minus the evidence lower bound (equation 10), in nats per image; x is (B, 64) in [0, 1]."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)  # the reparameterisation trick
        reconstruction = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1)
        kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(1)  # KL(q(z|x) || p(z)), in closed form
        return (reconstruction + kl).mean()

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """n new images, (n, 64) in [0, 1]."""
        return self.decoder(torch.randn(n, LATENT)).sigmoid()


def train(model: VAE, images: Tensor, steps: int, batch: int = 128) -> None:
    """Algorithm 1 with Adam: a random minibatch, a noisy estimate of the bound, one step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(1, steps + 1):
        loss = model.loss(images[torch.randint(len(images), (batch,))])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 500 == 0 or step == steps:
            print(f"step {step:5d}   minus bound {loss.item():.2f} nats per image")


def save_grid(images: Tensor, path: str, zoom: int = 6) -> None:
    """64 images (64, 64) in [0, 1] as an 8x8 grid of 8x8 pictures."""
    framed = F.pad(images.view(8, 8, 8, 8), (1, 1, 1, 1), value=0.3)
    grid = framed.permute(0, 2, 1, 3).reshape(80, 80).mul(255).round().byte()
    Image.fromarray(grid.numpy()).resize((80 * zoom, 80 * zoom), Image.Resampling.NEAREST).save(path)
    print(f"wrote {path}")


def main() -> None:
    """Train on the digits and draw 64 new ones."""
    parser = argparse.ArgumentParser(description="A variational autoencoder on 8x8 digits.")
    parser.add_argument("path", nargs="?", default="minimal_vae.png", help="where the grid of samples goes")
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16  # pyright: ignore
    model = VAE()
    train(model, images, arguments.steps)
    save_grid(model.sample(64), arguments.path)


if __name__ == "__main__":
    main()
