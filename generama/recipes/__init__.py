"""The recipes: Python functions that return a `Recipe`; this dictionary is the only list of them."""

from __future__ import annotations

from collections.abc import Callable

from generama.errors import UsageError, unknown
from generama.recipes.autoregressive import pixelcnn
from generama.recipes.diffusion import (
    adm_imagenet64,
    ddpm,
    ddpm_celeba64,
    ddpm_cifar10,
    ddpm_cosine,
    ddpm_v,
    dit,
    edm,
    rectified_flow,
    rectified_flow_cifar10,
)
from generama.recipes.flow import realnvp
from generama.recipes.gan import dcgan, dcgan_celeba64, gan_mlp
from generama.recipes.meanflow import meanflow
from generama.recipes.recipe import Recipe
from generama.recipes.vae import vae, vae_mlp

RECIPES: dict[str, Callable[[], Recipe]] = {
    "vae": vae,
    "vae-mlp": vae_mlp,
    "dcgan": dcgan,
    "gan-mlp": gan_mlp,
    "realnvp": realnvp,
    "pixelcnn": pixelcnn,
    "ddpm": ddpm,
    "ddpm-cosine": ddpm_cosine,
    "ddpm-v": ddpm_v,
    "edm": edm,
    "rectified-flow": rectified_flow,
    "dit": dit,
    "meanflow": meanflow,
    "ddpm-cifar10": ddpm_cifar10,
    "rectified-flow-cifar10": rectified_flow_cifar10,
    "ddpm-celeba64": ddpm_celeba64,
    "adm-imagenet64": adm_imagenet64,
    "dcgan-celeba64": dcgan_celeba64,
}


def recipe(name: str) -> Recipe:
    """The recipe of that name; a UsageError lists the names there are."""
    if name not in RECIPES:
        raise UsageError(unknown("recipe", name, RECIPES))
    return RECIPES[name]()
