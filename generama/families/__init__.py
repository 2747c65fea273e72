"""The families of generative models: one idea, one file; this dictionary is the only list of them."""

from __future__ import annotations

from typing import Any

from generama.core import Family, Spec
from generama.families.autoregressive import Autoregressive, AutoregressiveConfig
from generama.families.diffusion import Diffusion, DiffusionConfig
from generama.families.flow import Flow, FlowConfig
from generama.families.gan import GAN, GANConfig
from generama.families.meanflow import MeanFlow, MeanFlowConfig
from generama.families.vae import VAE, VAEConfig

FamilyConfig = VAEConfig | GANConfig | FlowConfig | AutoregressiveConfig | DiffusionConfig | MeanFlowConfig

FAMILIES: dict[str, Any] = {
    "vae": VAE,
    "gan": GAN,
    "flow": Flow,
    "autoregressive": Autoregressive,
    "diffusion": Diffusion,
    "meanflow": MeanFlow,
}


def build(config: FamilyConfig, spec: Spec) -> Family:
    """The untrained family that `config` describes, for data that looks like `spec`."""
    return FAMILIES[config.kind](config, spec)
