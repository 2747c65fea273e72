"""The peers' training steps as their documentation writes them, and what a training image costs each contender.

Run in a peer's own environment: `python -m benchmarks.contenders train diffusers ...` or `count generama`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from tyro.conf import Positional

from benchmarks.rows import versions

CHANNELS = (32, 64, 96)  # the peers' channels at 28, 14 and 7 pixels
NET: dict[str, Any] = {"width": 32, "multiples": (2, 3, 4), "patch": 1}  # ours: about as many parameters and operations


@dataclass(frozen=True)
class Contender:
    """A network, its loss on images (B, 1, 28, 28) in [0, 1], and what follows the backward pass."""

    network: nn.Module
    loss: Callable[[Tensor], Tensor]
    update: Callable[[], None]


def diffusers_unet(channels: tuple[int, int, int], attention: bool = True) -> Any:
    """UNet2DModel for grey 28x28 pictures, one block a level, attending at 7 pixels or nowhere."""
    from diffusers import UNet2DModel

    kind = "Attn" if attention else ""
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "DownBlock2D", f"{kind}DownBlock2D"),
        up_block_types=(f"{kind}UpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=math.gcd(*channels),
        add_attention=attention,
    )


def diffusers() -> Contender:
    """UNet2DModel with DDPMScheduler: the loop of diffusers' tutorial "Train a diffusion model", without accelerate."""
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup

    network = diffusers_unet(CHANNELS)
    schedule = DDPMScheduler(num_train_timesteps=1000)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    rates = get_cosine_schedule_with_warmup(optimiser, num_warmup_steps=500, num_training_steps=100_000)

    def loss(images: Tensor) -> Tensor:
        clean = 2 * images - 1
        noise = torch.randn_like(clean)
        times: Any = torch.randint(0, 1000, (len(clean),), dtype=torch.int64)
        noisy = schedule.add_noise(clean, noise, times)
        return nn.functional.mse_loss(network(noisy, times, return_dict=False)[0], noise)

    def update() -> None:
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        rates.step()
        optimiser.zero_grad()

    return Contender(network, loss, update)


def denoising_diffusion_pytorch() -> Contender:
    """Unet and GaussianDiffusion with the step of its Trainer: Adam, clipping at 1, an average every ten steps."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    first = CHANNELS[0]
    network = Unet(dim=first, dim_mults=tuple(c // first for c in CHANNELS), channels=1, flash_attn=True)
    diffusion = GaussianDiffusion(network, image_size=28, timesteps=1000)
    optimiser = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
    average = EMA(diffusion, beta=0.995, update_every=10)

    def update() -> None:
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update()

    return Contender(network, diffusion, update)


def generama() -> Contender:
    """The network and the loss of `ddpm` at the nearest size, to be counted; its training is `generama train`."""
    from generama.core import Batch, Condition, Noise, Spec
    from generama.families import build
    from generama.recipes import recipe

    chosen = recipe("ddpm").family
    family = build(replace(chosen, net=replace(chosen.net, **NET)), Spec(1, 28, 10))  # type: ignore[attr-defined]
    player = family.players()[0]

    def loss(images: Tensor) -> Tensor:
        batch = Batch(2 * images - 1, Condition(torch.zeros(len(images), dtype=torch.int64)))
        return player.loss(batch, Noise(0, len(batch)))[0]

    return Contender(player.module, loss, lambda: None)


CONTENDERS = {
    "diffusers": diffusers,
    "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
    "generama": generama,
}


def count(name: Positional[str]) -> None:
    """Print parameters, and operations of one training image, forward and backward, counted alike for all."""
    chosen = CONTENDERS[name]()
    images = torch.rand(2, 1, 28, 28)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused one is not counted
        loss = chosen.loss(images)
        forward = counter.get_total_flops()
        loss.backward()
    facts = {
        "parameters": sum(p.numel() for p in chosen.network.parameters()),
        "forward": forward / len(images),
        "training": counter.get_total_flops() / len(images),
        "versions": versions(),
    }
    print(json.dumps(facts))


def train(
    name: Positional[str],
    images: Path,
    log: Path,
    batch: int,
    keep_memory: bool = False,
    bfloat16: bool = False,
) -> None:
    """Train a peer without end on images.npy (N, 1, 28, 28) uint8, a line {"images": n} a step in the log."""
    if keep_memory:
        from generama.machine import keep_freed_memory

        keep_freed_memory()
    torch.manual_seed(0)
    chosen = CONTENDERS[name]()
    chosen.network.train()
    autocast = torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext()
    with log.open("w") as lines:
        for step, pictures in enumerate(endless(images, batch), start=1):
            with autocast:
                loss = chosen.loss(pictures)
            loss.backward()
            chosen.update()
            loss.item()  # both peers show it at every step
            lines.write(json.dumps({"images": step * batch}) + "\n")
            lines.flush()


def endless(images: Path, batch: int) -> Iterator[Tensor]:
    """Batches in [0, 1] from a DataLoader over pictures that are in memory already."""
    pictures = torch.from_numpy(np.load(images)).float() / 255
    loader = DataLoader(TensorDataset(pictures), batch_size=batch, shuffle=True, drop_last=True)
    for _ in itertools.count():
        yield from (one for (one,) in loader)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"count": count, "train": train})
