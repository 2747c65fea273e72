"""Recipes of the variational autoencoder: the one of the lectures, and a convolutional one for 8-bit images."""

from __future__ import annotations

from generama.families.vae import VAEConfig
from generama.nets.convnet import ConvAutoencoderConfig
from generama.nets.mlp import MLPAutoencoderConfig
from generama.recipes.recipe import Recipe
from generama.settings import TrainSettings


def vae_mlp() -> Recipe:
    """The VAE of the lectures: 784-400-20-400-784, binary cross-entropy plus KL, unconditional, Adam 1e-3.

    Kingma and Welling (2014), "Auto-Encoding Variational Bayes". A Bernoulli on grey values is no distribution over
    images, so it has no bits/dim. Expected: blurred but readable digits. Cost: about a minute on two CPU cores.
    """
    return Recipe(
        family=VAEConfig(net=MLPAutoencoderConfig(), latent=20, likelihood="bernoulli", conditional=False),
        train=TrainSettings(batch=128, rate=1e-3, schedule="constant", clip=0.0, average=0.0),
    )


def vae() -> Recipe:
    """A convolutional, class-conditional VAE with a discretised logistic likelihood of 8-bit images.

    Kingma and Welling (2014); conditional: Sohn et al. (2015); likelihood: Kingma et al. (2016). The KL counts four
    times in the loss (Higgins et al. 2017): 784 grey pixels weigh so much that with beta = 1 the latents of a class
    leave the prior, and draws from the prior look broken. bits/dim is that of the plain bound, always with beta = 1.
    Expected: 1.63 bits/dim on held-out digits after 64,000 images, that is 16 epochs of 4,000 (with beta = 2: 1.59).
    Cost: half a minute on two CPU cores for 4,000 digits.
    """
    return Recipe(
        family=VAEConfig(net=ConvAutoencoderConfig(), latent=16, likelihood="logistic", beta=4.0),
        train=TrainSettings(batch=64, rate=2e-3),
    )
