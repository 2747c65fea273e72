"""RealNVP in one file: a density you can write down (Dinh, Sohl-Dickstein and Bengio 2017), on two moons.

An invertible network f turns data into Gaussian noise, and log p(x) = log N(f(x)) + log |det df/dx|. Sampling runs f
backwards. A few seconds on a CPU:

    python examples/minimal_flow.py [moons.png] [--steps 1000]
"""

from __future__ import annotations

import argparse
import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

COUPLINGS, WIDTH, BATCH = 8, 64, 256


class Coupling(nn.Module):
    """One coordinate stays and says how to scale and shift the other: y = x exp(s) + t, log |det| = s."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.kept, self.moved = kept, 1 - kept
        self.enter, self.middle, self.leave = nn.Linear(1, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def s_and_t(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.middle(self.enter(x[:, self.kept, None]).relu()).relu()
        s, t = self.leave(hidden).unbind(dim=1)
        return 2 * torch.tanh(s / 2), t  # a bounded s cannot overflow

    def replace(self, x: Tensor, value: Tensor) -> Tensor:
        return torch.stack([x[:, 0], value] if self.moved == 1 else [value, x[:, 1]], dim=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.s_and_t(x)
        return self.replace(x, x[:, self.moved] * s.exp() + t), s

    def inverse(self, y: Tensor) -> Tensor:
        s, t = self.s_and_t(y)
        return self.replace(y, (y[:, self.moved] - t) * (-s).exp())


class RealNVP(nn.Module):
    """Couplings that keep the first coordinate and the second in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(kept=i % 2) for i in range(COUPLINGS))

    def log_prob(self, x: Tensor) -> Tensor:
        """(B, 2) points -> (B,) nats."""
        log_det = torch.zeros(len(x))
        for coupling in self.couplings:
            x, s = coupling(x)
            log_det += s
        return -0.5 * x.square().sum(dim=1) - math.log(2 * math.pi) + log_det

    def sample(self, count: int) -> Tensor:
        """(count, 2) points: Gaussian noise through the inverses in reverse order."""
        x = torch.randn(count, 2)
        for coupling in reversed(list(self.couplings)):
            x = coupling.inverse(x)  # type: ignore[operator]
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="minimal_flow.png", help="where the picture goes")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    torch.manual_seed(0)
    moons = torch.tensor(make_moons(20_000, noise=0.06, random_state=0)[0]).float()  # (20000, 2)
    flow = RealNVP()
    optimiser = torch.optim.Adam(flow.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    for step in range(options.steps):
        loss = -flow.log_prob(moons[torch.randint(len(moons), (BATCH,))]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}  {loss.item():.3f} nats")
    axis = torch.linspace(-2.5, 3.5, 200)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(axis, axis - 0.25)).exp().view(200, 200)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True)
    left.scatter(*flow.sample(2000).detach().T, s=2)
    right.imshow(density.T, origin="lower", extent=(-2.5, 3.5, -2.75, 3.25))
    right.set_title(f"samples, and the density: it sums to {density.sum().item() * (6 / 199) ** 2:.3f}")
    figure.savefig(options.path)


if __name__ == "__main__":
    main()
