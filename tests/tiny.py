"""The smallest configuration of every family: what the contract test runs over. A new family adds a line here."""

from __future__ import annotations

from generama.families import FAMILIES, FamilyConfig
from generama.families.autoregressive import AutoregressiveConfig
from generama.families.diffusion import DiffusionConfig
from generama.families.flow import FlowConfig
from generama.families.gan import GANConfig
from generama.families.vae import VAEConfig
from generama.gaussian.formulations import DDPM, RectifiedFlow
from generama.nets.attention_unet import AttentionUNetConfig
from generama.nets.dcgan import DCGANConfig
from generama.nets.mlp import MLPAutoencoderConfig, MLPGANConfig
from generama.nets.unet import UNetConfig

UNET = UNetConfig(width=8, multiples=(1, 2))
ATTENTION_UNET = AttentionUNetConfig(width=8, multiples=(1, 2, 2), blocks=1, attention=(8,), head=4)

TINY: dict[str, FamilyConfig] = {
    "vae": VAEConfig(latent=5),
    "vae-mlp": VAEConfig(net=MLPAutoencoderConfig(), latent=3, likelihood="bernoulli"),
    "gan": GANConfig(net=DCGANConfig()),
    "gan-mlp": GANConfig(net=MLPGANConfig(), conditional=False),
    "flow": FlowConfig(),
    "autoregressive": AutoregressiveConfig(),
    "diffusion": DiffusionConfig(net=UNET),
    "diffusion-cosine": DiffusionConfig(net=UNET, formulation=DDPM(schedule="cosine")),
    "diffusion-attention": DiffusionConfig(net=ATTENTION_UNET),
    "diffusion-rectified-flow": DiffusionConfig(net=UNET, formulation=RectifiedFlow()),
}

assert {config.kind for config in TINY.values()} == set(FAMILIES), "every family needs a tiny configuration"
