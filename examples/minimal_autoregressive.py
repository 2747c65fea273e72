"""A PixelCNN in one file: draw digits pixel by pixel (van den Oord et al. 2016), on scikit-learn's 8x8 digits.

p(x) = prod_i p(x_i | the pixels before it): a convolution that sees only what lies above and to the left gives all
the factors at once. A few seconds on a CPU:

    python examples/minimal_autoregressive.py [digits.png] [--steps 400]
"""

from __future__ import annotations

import argparse
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

LEVELS, SIZE, CLASSES = 17, 8, 10  # pixels are 0..16
WIDTH = 24


class Layer(nn.Module):
    """One step of both stacks: the vertical sees the rows to r, the horizontal its own row up to column c as well."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.vertical = nn.Conv2d(inputs, 2 * WIDTH, (2, 3))  # rows r-1, r; columns c-1 .. c+1
        self.horizontal = nn.Conv2d(inputs, 2 * WIDTH, (1, 2))  # columns c-1, c
        self.down = nn.Conv2d(2 * WIDTH, 2 * WIDTH, 1)
        self.label = nn.Embedding(CLASSES, 2 * WIDTH)

    def forward(self, v: Tensor, h: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        above = self.vertical(F.pad(v, (1, 1, 1, 0)))
        ahead = self.horizontal(F.pad(h, (1, 0))) + self.down(above) + self.label(label)[:, :, None, None]
        return gate(above), gate(ahead)


def gate(features: Tensor) -> Tensor:
    """The gated activation: tanh of one half times the sigmoid of the other."""
    signal, opening = features.chunk(2, dim=1)
    return signal.tanh() * opening.sigmoid()


class PixelCNN(nn.Module):
    """(B, 8, 8) levels and (B,) labels -> (B, 17, 8, 8) logits, each blind to its own pixel and all later ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(2), Layer(WIDTH), Layer(WIDTH), Layer(WIDTH)])
        self.logits = nn.Conv2d(WIDTH, LEVELS, 1)

    def forward(self, level: Tensor, label: Tensor) -> Tensor:
        x = level[:, None] / 8 - 1.0
        x = torch.cat([x, torch.ones_like(x)], dim=1)  # the ones tell the border from a grey pixel
        v = F.pad(x, (0, 0, 1, 0))[:, :, :-1]  # shifted down: row r holds row r-1, so nobody sees itself
        h = F.pad(x, (1, 0))[:, :, :, :-1]  # shifted right: column c holds column c-1
        for layer in self.layers:
            dv, dh = layer(v, h, label)
            v, h = (dv, dh) if dv.shape != v.shape else (v + dv, h + dh)
        return self.logits(h)


def sample(net: PixelCNN, label: Tensor) -> Tensor:
    """Draw the pixels one after the other, each from what the network says given those before it."""
    level = torch.zeros(len(label), SIZE, SIZE, dtype=torch.long)
    for r in range(SIZE):
        for c in range(SIZE):
            level[:, r, c] = net(level, label)[:, :, r, c].softmax(dim=1).multinomial(1)[:, 0]
    return level


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="minimal_autoregressive.png", help="where the grid of samples goes")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels).long().view(-1, SIZE, SIZE), torch.tensor(classes).long()
    net = PixelCNN()
    optimiser = torch.optim.Adam(net.parameters(), lr=4e-3)
    for step in range(options.steps):
        i = torch.randint(len(images), (32,))
        loss = F.cross_entropy(net(images[i], labels[i]), images[i])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"step {step}  {loss.item() / math.log(2):.3f} bits/dim")
    with torch.no_grad():
        drawn = sample(net, torch.arange(CLASSES).repeat(CLASSES))
    grid = drawn.view(CLASSES, CLASSES, SIZE, SIZE).transpose(1, 2).reshape(CLASSES * SIZE, CLASSES * SIZE)
    plt.imsave(options.path, grid.numpy(), cmap="gray", vmin=0, vmax=LEVELS - 1)


if __name__ == "__main__":
    main()
