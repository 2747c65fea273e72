"""Sampling of diffusers: what its schedulers make of a network, and how fast its pipelines draw with one of their own.

`python -m benchmarks.peer_sampler --scheduler ddpm --steps 1000 --count 128` runs in the peers' environment, times
DDPMPipeline, or a scheduler in the loop of pipelines, around a UNet2DModel with random weights, which costs what a
trained one costs, and prints JSON.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.contenders import diffusers_unet
from benchmarks.rows import versions

CHANNELS = (24, 48, 64)  # at 28, 14 and 7 pixels: 2 % fewer parameters than ours of 48 in patches, and no attention
BATCH = 64
VP: dict[str, Any] = {"timestep_spacing": "trailing", "clip_sample": True}


def scheduler_of(name: str) -> Any:
    """A scheduler on the linear schedule of DDPM, T = 1000, with the settings its documentation recommends."""
    import diffusers

    made: dict[str, Callable[[], Any]] = {
        "ddpm": lambda: diffusers.DDPMScheduler(),
        "ddim": lambda: diffusers.DDIMScheduler(**VP),
        "dpm-solver++ 2M": lambda: diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing"),
        "dpm-solver++ 2M, karras": lambda: diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True),
        "unipc": lambda: diffusers.UniPCMultistepScheduler(timestep_spacing="trailing"),
    }
    return made[name]()


def drawn(scheduler: Any, steps: int, noise: Tensor, predict: Callable[[Tensor, Any], Tensor]) -> Tensor:
    """What the scheduler makes of noise (B, C, H, W) in so many steps, as the pipelines run it; `predict` says eps."""
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        x = scheduler.step(predict(scheduler.scale_model_input(x, step), step), step, x).prev_sample
    return x.clamp(-1, 1)


def main(scheduler: str, steps: int, count: int, threads: int = os.cpu_count() or 1) -> None:
    """Images a second over whole batches, after a few steps that nobody counts."""
    from diffusers import DDPMPipeline

    torch.set_num_threads(threads)
    network = diffusers_unet(CHANNELS, attention=False).eval()
    pipeline = DDPMPipeline(unet=network, scheduler=scheduler_of("ddpm"))
    pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def batch(steps: int) -> None:
        if scheduler == "ddpm":
            pipeline(batch_size=BATCH, num_inference_steps=steps, output_type="np")
        else:  # not every scheduler fits into a pipeline without text; the loop is the pipelines' own
            noise = torch.randn(BATCH, 1, 28, 28)
            drawn(scheduler_of(scheduler), steps, noise, lambda x, step: network(x, step, return_dict=False)[0])

    batch(min(steps, 5))
    began = time.perf_counter()
    for _ in range(count // BATCH):
        batch(steps)
    speed = count / (time.perf_counter() - began)
    parameters = sum(p.numel() for p in network.parameters())
    print(json.dumps({"speed": speed, "parameters": parameters, "versions": versions()}))


if __name__ == "__main__":
    tyro.cli(main)
