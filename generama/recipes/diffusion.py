"""Recipes of the diffusion family: DDPM with two noise schedules, and rectified flow."""

from __future__ import annotations

from dataclasses import replace

from generama.families.diffusion import DiffusionConfig
from generama.gaussian.formulations import DDPM, RectifiedFlow
from generama.recipes.recipe import Recipe
from generama.settings import Count, TrainSettings


def ddpm() -> Recipe:
    """Denoising diffusion with the linear schedule, T = 1000 (Ho et al. 2020). Samples with 50 DDIM steps."""
    return Recipe(
        family=DiffusionConfig(formulation=DDPM()),
        train=TrainSettings(batch=64, rate=1e-3, warmup=Count(2_000)),
        sample={"steps": 50, "sampler": "ddim"},
    )


def ddpm_cosine() -> Recipe:
    """Denoising diffusion with the cosine schedule (Nichol & Dhariwal 2021). Samples with 50 DDIM steps."""
    base = ddpm()
    return replace(base, family=replace(base.family, formulation=DDPM(schedule="cosine")))


def rectified_flow() -> Recipe:
    """Rectified flow: straight lines between noise and image (Liu et al. 2022). Samples with 25 Euler steps."""
    base = ddpm()
    return replace(
        base,
        family=replace(base.family, formulation=RectifiedFlow()),
        sample={"steps": 25, "sampler": "euler"},
    )
