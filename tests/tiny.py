"""The smallest configuration of every family: what the contract test runs over. A new family adds a line here."""

from __future__ import annotations

from dataclasses import replace

from generama.families import FAMILIES, FamilyConfig
from generama.families.autoregressive import AutoregressiveConfig
from generama.families.diffusion import DiffusionConfig
from generama.families.flow import FlowConfig
from generama.families.gan import GANConfig
from generama.families.meanflow import MeanFlowConfig
from generama.families.vae import VAEConfig
from generama.gaussian.formulations import DDPM, EDM, RectifiedFlow
from generama.gaussian.schedules import Schedule
from generama.nets.attention_unet import AttentionUNetConfig
from generama.nets.dcgan import DCGANConfig
from generama.nets.dit import DiTConfig
from generama.nets.mlp import MLPAutoencoderConfig, MLPGANConfig
from generama.nets.unet import UNetConfig

UNET = UNetConfig(width=8, multiples=(1, 2))
DIT = DiTConfig(width=16, depth=2, heads=2)
ATTENTION_UNET = AttentionUNetConfig(width=8, multiples=(1, 2, 2), blocks=1, attention=(8,), head=4)

TINY: dict[str, FamilyConfig] = {
    "vae": VAEConfig(latent=5),
    "vae-mlp": VAEConfig(net=MLPAutoencoderConfig(), latent=3, likelihood="bernoulli"),
    "gan": GANConfig(net=DCGANConfig()),
    "gan-mlp": GANConfig(net=MLPGANConfig(), conditional=False),
    "flow": FlowConfig(),
    "autoregressive": AutoregressiveConfig(),
    "diffusion": DiffusionConfig(net=UNET),
    "diffusion-ode": DiffusionConfig(net=UNET, likelihood="ode", formulation=EDM()),
    "diffusion-classifier": DiffusionConfig(net=UNET, classifier=8),
    "diffusion-cosine": DiffusionConfig(net=UNET, formulation=DDPM(schedule=Schedule("cosine"))),
    "diffusion-v": DiffusionConfig(net=UNET, formulation=DDPM(predict="v", min_snr=5.0)),
    "diffusion-x0": DiffusionConfig(net=UNET, formulation=DDPM(predict="x0")),
    "diffusion-edm": DiffusionConfig(net=UNET, formulation=EDM()),
    "diffusion-patches": DiffusionConfig(net=replace(UNET, width=16, patch=2)),
    "diffusion-attention": DiffusionConfig(net=ATTENTION_UNET),
    "diffusion-dit": DiffusionConfig(net=DIT),
    "diffusion-dit-cross": DiffusionConfig(net=replace(DIT, told="cross-attention")),
    "diffusion-dit-context": DiffusionConfig(net=replace(DIT, told="in-context")),
    "diffusion-dit-joint": DiffusionConfig(
        net=replace(DIT, told="joint"), formulation=RectifiedFlow(times="logit-normal")
    ),
    "diffusion-rectified-flow": DiffusionConfig(net=UNET, formulation=RectifiedFlow()),
    "meanflow": MeanFlowConfig(net=UNET),
    "meanflow-attention": MeanFlowConfig(net=ATTENTION_UNET),
    "meanflow-dit": MeanFlowConfig(net=DIT),
}

assert {config.kind for config in TINY.values()} == set(FAMILIES), "every family needs a tiny configuration"
