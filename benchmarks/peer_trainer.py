"""denoising-diffusion-pytorch as its README trains it, for some minutes; then a thousand images by its own sampler.

Runs in the peers' environment and writes images.npz: images (N, 1, 28, 28) uint8, seconds of training, steps, and the
share of the machine that other processes took meanwhile (NaN where that is not known).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.watching import Others

BATCH = 100  # of drawing


def main(pictures: Path, out: Path, minutes: float, dim: int, rate: float, samples: int, steps: int) -> None:
    """Train on a folder of grey 28x28 PNGs. 28 can be halved twice, so three of the README's four levels are used.

    Other than the README: no mirrored digits, no float16 (there is none on a CPU), and no pause to draw and save.
    """
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    torch.manual_seed(0)
    network = Unet(dim=dim, dim_mults=(1, 2, 4), channels=1, flash_attn=True)
    diffusion = GaussianDiffusion(network, image_size=28, timesteps=1000, sampling_timesteps=steps)
    trainer = Trainer(
        diffusion,
        str(pictures),
        train_batch_size=32,
        train_lr=rate,
        train_num_steps=10**9,
        gradient_accumulate_every=2,
        ema_decay=0.995,
        augment_horizontal_flip=False,
        calculate_fid=False,
        save_and_sample_every=10**9,
        results_folder=str(out.parent),
    )
    others = Others()
    seconds = train_for(trainer, 60 * minutes)
    beside = others.share()
    sampler = trainer.ema.ema_model.eval()
    with torch.inference_mode():
        drawn = torch.cat([sampler.sample(batch_size=min(BATCH, samples - n)) for n in range(0, samples, BATCH)])
    images = (255 * drawn.clamp(0, 1)).round().to(torch.uint8)
    np.savez(
        out, images=images.numpy(), seconds=seconds, steps=trainer.step, others=np.nan if beside is None else beside
    )


def train_for(trainer, seconds: float) -> float:  # noqa: ANN001 (the peer's Trainer, unknown to our environment)
    """Let the Trainer run, and lower its number of steps when the time is up; the seconds it took."""

    def stop() -> None:
        trainer.train_num_steps = 0

    timer = threading.Timer(seconds, stop)
    began = time.perf_counter()
    timer.start()
    trainer.train()
    return time.perf_counter() - began


if __name__ == "__main__":
    tyro.cli(main)
