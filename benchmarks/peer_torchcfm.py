"""torchcfm as its notebook conditional_mnist.ipynb trains it, for some minutes; then images by its adaptive solver.

Runs in the peers' environment, like `peer_trainer`, and writes the same npz; image i is of class i modulo 10.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import nn

from benchmarks.watching import Others

BATCH = 100  # of drawing


def main(pictures: Path, out: Path, minutes: float, samples: int) -> None:
    """Train on a folder of grey 28x28 PNGs with their labels.npy, the class as condition.

    The notebook's settings: 32 channels, one residual block a level, batch 128, Adam at its default rate, dopri5 with
    tolerances of 1e-4. It has neither guidance nor an average of the weights. Pictures are in memory, as ours are.
    """
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
    from torchcfm.models.unet import UNetModel
    from torchdiffeq import odeint

    torch.manual_seed(0)
    network = UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1, num_classes=10, class_cond=True)
    matcher = ConditionalFlowMatcher(sigma=0.0)
    optimiser = torch.optim.Adam(network.parameters())
    read = np.stack([np.asarray(Image.open(path)) for path in sorted(pictures.glob("*.png"))])
    images = torch.from_numpy(read)[:, None].float() / 127.5 - 1
    known = torch.from_numpy(np.load(pictures / "labels.npy")).long()
    others, began, steps = Others(), time.perf_counter(), 0
    while time.perf_counter() - began < 60 * minutes:
        for rows in torch.randperm(len(images)).split(128)[:-1]:
            if time.perf_counter() - began >= 60 * minutes:
                break
            x1 = images[rows]
            t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
            loss = nn.functional.mse_loss(network(t, xt, known[rows]), ut)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
    seconds, beside = time.perf_counter() - began, others.share()
    network.eval()
    drawn = []
    with torch.no_grad():
        for start in range(0, samples, BATCH):
            asked = torch.arange(start, min(start + BATCH, samples)) % 10

            def velocity(t: torch.Tensor, x: torch.Tensor, asked: torch.Tensor = asked) -> torch.Tensor:
                return network(t, x, asked)

            noise = torch.randn(len(asked), 1, 28, 28)
            path = odeint(velocity, noise, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=1e-4, method="dopri5")
            drawn.append(path[-1].clamp(-1, 1))
    images = (127.5 * (torch.cat(drawn) + 1)).round().to(torch.uint8)
    np.savez(out, images=images.numpy(), seconds=seconds, steps=steps, others=np.nan if beside is None else beside)


if __name__ == "__main__":
    tyro.cli(main)
