"""Recipes of the diffusion family: DDPM with two noise schedules, and rectified flow."""

from __future__ import annotations

from dataclasses import replace

from generama.families.diffusion import DiffusionConfig
from generama.gaussian.formulations import DDPM, RectifiedFlow
from generama.recipes.recipe import Recipe
from generama.settings import Count, TrainSettings


def ddpm() -> Recipe:
    """Denoising diffusion with the linear schedule, T = 1000, sampled with 50 ancestral steps.

    Ho et al. (2020), "Denoising Diffusion Probabilistic Models", arXiv:2006.11239; class-conditional. Predicting noise
    says little about the picture where there is nearly only noise, so the classes come late: give it minutes, not
    seconds. Small batches, because on a CPU few images are seen. Expected: Fréchet distance 0.38 after ten epochs of
    MNIST, real held-out digits scoring 0.32 (27 minutes of one CPU core); strokes, not digits, after half a minute.
    """
    return Recipe(
        family=DiffusionConfig(formulation=DDPM()),
        train=TrainSettings(batch=16, rate=3e-3, warmup=Count(1_000)),
        sample={"steps": 50, "sampler": "ancestral"},
    )


def ddpm_cosine() -> Recipe:
    """Denoising diffusion with the cosine schedule, sampled with 50 ancestral steps.

    Nichol and Dhariwal (2021), "Improved Denoising Diffusion Probabilistic Models", arXiv:2102.09672; without their
    learned variances.
    """
    base = ddpm()
    return replace(base, family=replace(base.family, formulation=DDPM(schedule="cosine")))


def rectified_flow() -> Recipe:
    """Rectified flow, class-conditional: straight lines from noise to image, 10 Euler steps with guidance 2.

    Liu et al. (2022), "Flow Straight and Fast", arXiv:2209.03003; Lipman et al. (2022), arXiv:2210.02747; guidance:
    Ho and Salimans (2022), arXiv:2207.12598, whose w is 1 here. Expected: readable digits of the class asked for after
    half a minute on two CPU cores.
    """
    base = ddpm()
    return replace(
        base,
        family=replace(base.family, formulation=RectifiedFlow()),
        sample={"steps": 10, "sampler": "euler", "guidance": 2.0},
    )
