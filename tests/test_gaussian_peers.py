"""NU-11: our samplers beside the schedulers of diffusers, given the same exact denoiser of Gaussian data.

Equal to 1e-5 on the same times. What differs is the grids, each shown here: diffusers' flow matching ends its own grid
at 1/1000 and then jumps to 0, and its "leading" spacing, the default of DDIM and DDPM, starts below the noisiest step
(the reasons are in Lin et al. 2023; issues #11347, #12771 of diffusers are of other spacings).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from generama.core import Rng
from generama.gaussian.formulations import DDPM, EDM, RectifiedFlow
from generama.gaussian.grids import GRIDS
from generama.gaussian.samplers import SAMPLERS, ddim

VP: dict[str, Any] = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "timestep_spacing": "trailing",
}
SEEDS = range(3)
Model = Callable[[Any, Tensor, Any], Tensor]  # scheduler, its sample, its timestep -> what its network would say


def exact(y: Tensor, t: Tensor) -> Tensor:
    """The velocity of data N(0.4, 0.3^2)."""
    variance = (1 - t) ** 2 * 0.09 + t**2
    return (t - (1 - t) * 0.09) / variance * (y - (1 - t) * 0.4) - 0.4


def noise_of_steps(scheduler: Any, x: Tensor, step: Any) -> Tensor:
    """eps where the sample is x = y / n and time is a step."""
    abar = scheduler.alphas_cumprod.double()[int(step)]
    t = (1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt())
    y = x * torch.hypot(1 - t, t)
    return y + (1 - t) * exact(y, t)


def noise_of_sigmas(scheduler: Any, x: Tensor, step: Any) -> Tensor:
    """eps where the sample is x = y / (1 - t) and the noise is sigma."""
    t = sigma_now(scheduler) / (1 + sigma_now(scheduler))
    return x * (1 - t) + (1 - t) * exact(x * (1 - t), t)


def answer_of_edm(scheduler: Any, x: Tensor, step: Any) -> Tensor:
    """F of Karras et al. for the same."""
    t = sigma_now(scheduler) / (1 + sigma_now(scheduler))
    y, v = x * (1 - t), exact(x * (1 - t), t)
    return EDM().target(y - t * v, y + (1 - t) * v, t)


def sigma_now(scheduler: Any) -> Tensor:
    return scheduler.sigmas.double()[scheduler.step_index or 0]


def theirs(scheduler: Any, model: Model, x: Tensor, **options: Any) -> Tensor:
    for step in scheduler.timesteps:
        x = scheduler.step(model(scheduler, x, step), step, x, **options).prev_sample.double()
    return x


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_ddim(steps: int) -> None:
    scheduler = diffusers.DDIMScheduler(**VP, clip_sample=False)
    assert torch.allclose(scheduler.alphas_cumprod.double(), DDPM().schedule.alpha_bar(), rtol=1e-5)
    scheduler.alphas_cumprod = DDPM().schedule.alpha_bar()  # its own are float32: 1e-5 after a single step
    scheduler.set_timesteps(steps)
    times = GRIDS["uniform"](DDPM(), steps)
    x = Rng(SEEDS, dtype=torch.float64).normal(1, 2, 3)
    ours = SAMPLERS["euler"](exact, x * torch.hypot(1 - times[0], times[0]), times, Rng(SEEDS))
    assert (ours - theirs(scheduler, noise_of_steps, x)).abs().max() < 1e-10


class Given:
    """Noise that was drawn before, for one image after the other in both."""

    def __init__(self, draws: list[Tensor]) -> None:
        self.draws = iter(draws)

    def normal(self, *shape: int) -> Tensor:
        return next(self.draws)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_with_fresh_noise(eta: float) -> None:
    scheduler = diffusers.DDIMScheduler(**VP, clip_sample=False)
    scheduler.set_timesteps(10)
    times = GRIDS["uniform"](DDPM(), 10)
    x, *draws = Rng(SEEDS, dtype=torch.float64).normal(11, 1, 2, 3).unbind(1)
    given: Any = Given(draws)
    ours = ddim(exact, x * torch.hypot(1 - times[0], times[0]), times, given, eta)
    for step, z in zip(scheduler.timesteps, draws, strict=True):
        eps = noise_of_steps(scheduler, x, step)
        x = scheduler.step(eps, int(step), x, eta=eta, variance_noise=z).prev_sample
    assert (ours - x).abs().max() < 1e-5


def test_ancestral_sampling_of_ddpm() -> None:
    scheduler = diffusers.DDPMScheduler(**VP, clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(20)
    times = GRIDS["uniform"](DDPM(), 20)
    x = Rng(SEEDS, dtype=torch.float64).normal(1, 2, 3)
    stream = torch.Generator().manual_seed(0)
    draws = [torch.randn(x.shape, generator=stream, dtype=torch.float64) for _ in range(20)]
    given: Any = Given(draws)
    ours = SAMPLERS["ancestral"](exact, x * torch.hypot(1 - times[0], times[0]), times, given)
    assert (ours - theirs(scheduler, noise_of_steps, x, generator=torch.Generator().manual_seed(0))).abs().max() < 1e-5


def test_euler() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(**VP)
    scheduler.set_timesteps(20)
    times = GRIDS["uniform"](DDPM(), 20)
    y = Rng(SEEDS, dtype=torch.float64).normal(1, 2, 3)
    ours = SAMPLERS["euler"](exact, y, times, Rng(SEEDS))
    assert (ours - theirs(scheduler, noise_of_sigmas, y / (1 - times[0]))).abs().max() < 1e-5


def test_heun_in_straight_coordinates_is_another_method_than_in_sigma_and_as_good() -> None:
    """Only Euler's step is the same in all coordinates: the known difference. The truth is the flow of the Gaussian."""
    y = Rng(SEEDS, dtype=torch.float64).normal(1, 2, 3)
    errors = []
    for steps in (20, 40):
        scheduler = diffusers.HeunDiscreteScheduler(**VP)
        scheduler.set_timesteps(steps)
        times = GRIDS["uniform"](DDPM(), steps)
        t0 = times[0]
        truth = 0.4 + 0.3 * (y - (1 - t0) * 0.4) / torch.hypot((1 - t0) * 0.3, t0)
        ours = SAMPLERS["heun"](exact, y, times, Rng(SEEDS))
        peer = theirs(scheduler, noise_of_sigmas, y / (1 - t0))
        errors.append([(found - truth).abs().max().item() for found in (ours, peer)])
    assert all(ours < 1.25 * peer for ours, peer in errors)
    assert all(late < early / 3 for early, late in zip(*errors, strict=True))


def test_dpm_solver() -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(**VP, final_sigmas_type="zero")
    scheduler.set_timesteps(20)
    times = GRIDS["uniform"](DDPM(), 20)
    x = Rng(SEEDS, dtype=torch.float64).normal(1, 2, 3)
    ours = SAMPLERS["dpmpp-2m"](exact, x * torch.hypot(1 - times[0], times[0]), times, Rng(SEEDS))
    assert (ours - theirs(scheduler, noise_of_steps, x)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "sampler"), [("EDMEulerScheduler", "euler"), ("EDMDPMSolverMultistepScheduler", "dpmpp-2m")]
)
def test_edm_on_its_own_grid(name: str, sampler: str) -> None:
    scheduler = getattr(diffusers, name)(sigma_data=0.5)
    scheduler.set_timesteps(18)
    times = GRIDS["karras"](EDM(), 18)
    assert torch.allclose(scheduler.sigmas.double(), times / (1 - times), rtol=1e-5)
    y = Rng(SEEDS, dtype=torch.float64).normal(1, 2, 3)
    ours = SAMPLERS[sampler](exact, y, times, Rng(SEEDS))
    assert (ours - theirs(scheduler, answer_of_edm, y / (1 - times[0]))).abs().max() < 1e-5


def test_flow_matching() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    times = GRIDS["uniform"](RectifiedFlow(), 20)
    y = Rng(SEEDS, dtype=torch.float64).normal(1, 2, 3)

    def model(scheduler: Any, y: Tensor, step: Any) -> Tensor:
        return exact(y, sigma_now(scheduler))

    scheduler.set_timesteps(sigmas=times[:-1].tolist())
    ours = SAMPLERS["euler"](exact, y, times, Rng(SEEDS))
    assert (ours - theirs(scheduler, model, y)).abs().max() < 1e-5
    scheduler.set_timesteps(20)  # the known difference: its own grid is another
    assert scheduler.sigmas[-2] == pytest.approx(1e-3) and scheduler.sigmas[0] == 1


def test_leading_spacing_is_another_grid() -> None:
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(10)
    assert scheduler.config["timestep_spacing"] == "leading"
    assert scheduler.timesteps[0] == 900  # not 999: it starts with noise that the network takes for a part of a picture
