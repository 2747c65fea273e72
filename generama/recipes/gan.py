"""Recipes of the generative adversarial network: the classic one of fully connected layers, and DCGAN in two sizes."""

from __future__ import annotations

from generama.families.gan import GANConfig
from generama.nets.dcgan import DCGANConfig
from generama.nets.mlp import MLPGANConfig
from generama.recipes.recipe import Recipe
from generama.settings import TrainSettings


def gan_mlp() -> Recipe:
    """The classic fully connected GAN, to the letter: unconditional, Adam 2e-4 with betas 0.5 and 0.999, batch 64.

    Goodfellow et al. (2014), "Generative Adversarial Nets". z of 100 normal numbers; generator 256-512-1024-784 with
    ReLU and Tanh; discriminator 1024-512-256-1 with LeakyReLU(0.2) and a sigmoid, which is computed inside the binary
    cross-entropy; real labels smoothed to 0.9; one discriminator step and two generator steps per batch; a constant
    rate; no averaging of weights. Expected: luck. After ten epochs of MNIST one seed drew speckled, readable digits
    of every class (Fréchet distance 7.1) and another had collapsed to a single image (147): docs/classic.md.
    """
    return Recipe(
        family=GANConfig(net=MLPGANConfig(), latent=100, smoothing=0.1, generator_turns=2, conditional=False),
        train=TrainSettings(batch=64, rate=2e-4, betas=(0.5, 0.999), schedule="constant", clip=0.0, average=0.0),
    )


def dcgan() -> Recipe:
    """A class-conditional DCGAN: transposed 4x4 convolutions, batch norm, no bias, Adam with betas 0.5 and 0.999.

    Radford et al. (2016), "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks". Two things differ from the paper, for budgets of a minute rather than of hours: the rate is 5e-4, not
    2e-4, and the networks are a quarter as wide (`--train.rate 2e-4 --family.net.width 128` is the paper). Expected:
    readable digits after 50,000 images, 96 % of them of the class that was asked for (by a small classifier that is
    97 % right on real ones). Cost: half a minute on two CPU cores for 4,000 digits.
    """
    return Recipe(
        family=GANConfig(net=DCGANConfig(), latent=100),
        train=TrainSettings(batch=64, rate=5e-4, betas=(0.5, 0.999), schedule="constant", clip=0.0),
    )


def dcgan_celeba64() -> Recipe:
    """DCGAN for CelebA at 64x64 with the paper's settings: channels from 1024 to 128, batch 128, Adam 2e-4.

    Radford et al. (2016), section 3 and figure 1: betas 0.5 and 0.999, no smoothing of labels, unconditional, no
    averaging of weights. The paper's own faces are not CelebA, and it reports no FID and no number of steps. Not run
    here. Expected: Heusel et al. (2017), arXiv:1706.08500, table 1, report FID 12.5 for a DCGAN on CelebA with two
    time-scales, and 21.4 without (the latter from memory). Trains 25 epochs, as other implementations do (from memory).
    Cost: not reported.
    """
    return Recipe(
        family=GANConfig(net=DCGANConfig(width=128), latent=100, smoothing=0.0, conditional=False),
        train=TrainSettings(
            batch=128,
            rate=2e-4,
            betas=(0.5, 0.999),
            schedule="constant",
            clip=0.0,
            average=0.0,
            epochs=25,
        ),
    )
