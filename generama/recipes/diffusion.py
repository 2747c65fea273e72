"""Recipes of the diffusion family: DDPM with two noise schedules, rectified flow, and the papers' own for GPUs.

What the GPU recipes cost, and how the hours were estimated, is in docs/scaling.md. They train on the pictures as they
are, where the papers flip half of them, and keep this project's average of weights.

What is "expected without patches" was measured with `--family.net.width 16 --family.net.patch 1`; the default is better
after the same minutes, as far as was tried (docs/diffusion.md).
"""

from __future__ import annotations

from dataclasses import replace

from generama.families.diffusion import DiffusionConfig
from generama.gaussian.formulations import DDPM, EDM, RectifiedFlow
from generama.gaussian.schedules import Schedule
from generama.nets.attention_unet import AttentionUNetConfig
from generama.nets.dit import DiTConfig
from generama.recipes.recipe import Recipe
from generama.settings import TrainSettings


def ddpm() -> Recipe:
    """Denoising diffusion with the linear schedule, T = 1000, sampled with 50 ancestral steps.

    Ho et al. (2020), "Denoising Diffusion Probabilistic Models", arXiv:2006.11239; class-conditional. Predicting noise
    says little about the picture where there is nearly only noise, so the classes come late: give it minutes, not
    seconds. Small batches, because on a CPU few images are seen. Expected without patches: Fréchet distance 0.38 after
    ten epochs of MNIST, real held-out digits scoring 0.32 (27 minutes of one CPU core). Half a minute is too little.
    """
    return Recipe(
        family=DiffusionConfig(formulation=DDPM()),
        train=TrainSettings(batch=16, rate=3e-3, warmup=1_000),
        sample={"steps": 50, "sampler": "ancestral"},
    )


def ddpm_cosine() -> Recipe:
    """Denoising diffusion with the cosine schedule, sampled with 50 ancestral steps.

    Nichol and Dhariwal (2021), "Improved Denoising Diffusion Probabilistic Models", arXiv:2102.09672; without their
    learned variances. Expected without patches: Fréchet distance 6.6 after four minutes of one CPU core on whole MNIST
    (real digits: 0.32) with 20 steps of dpmpp-2m on the log-snr grid.
    """
    base = ddpm()
    return replace(base, family=replace(base.family, formulation=DDPM(schedule=Schedule("cosine"))))


def ddpm_v() -> Recipe:
    """Diffusion that predicts v = alpha eps - sigma x0, which says something about the picture at every noise.

    Salimans and Ho (2022), "Progressive Distillation", arXiv:2202.00512, appendix D; cosine schedule, and weights
    min(SNR, 5) of Hang et al. (2023), arXiv:2303.09556. 20 steps of DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095).
    Expected without patches: Fréchet distance 2.6 after four minutes of one CPU core on whole MNIST (real digits:
    0.32), 84 % of the digits as asked for; with `--guidance 2` 1.9 and 99 %.
    """
    formulation = DDPM(predict="v", schedule=Schedule("cosine"), min_snr=5.0)
    return replace(
        ddpm(),
        family=DiffusionConfig(formulation=formulation),
        sample={"steps": 20, "sampler": "dpmpp-2m", "grid": "log-snr"},
    )


def edm() -> Recipe:
    """EDM, class-conditional: an image estimate scaled to unit size at every noise, 18 Heun steps on Karras' grid.

    Karras et al. (2022), "Elucidating the Design Space of Diffusion-Based Generative Models", arXiv:2206.00364, table
    1. Expected without patches: Fréchet distance 8.3 after four minutes of one CPU core on whole MNIST (real digits:
    0.32), 61 % of the digits as asked for; with `--guidance 2` 5.5 and 85 %. Its times are the paper's, for
    photographs, and probably have too little noise for digits.
    """
    return replace(
        ddpm(),
        family=DiffusionConfig(formulation=EDM()),
        sample={"steps": 18, "sampler": "heun", "grid": "karras"},
    )


def dit() -> Recipe:
    """Rectified flow with a transformer in place of the U-Net, logit-normal times.

    Peebles and Xie (2023), "Scalable Diffusion Models with Transformers", arXiv:2212.09748; Esser et al. (2024),
    arXiv:2403.03206. `--family.net.told` chooses how the blocks are told the class. Expected: Fréchet distance 27 after
    four minutes of one CPU core on whole MNIST with guidance 2 (real digits: 0.32), 70 % of the digits as asked for,
    where `rectified-flow` with the same times, without patches, has 1.8 and 99 %.
    """
    base = rectified_flow()
    return replace(
        base,
        family=DiffusionConfig(formulation=RectifiedFlow(times="logit-normal"), net=DiTConfig()),
        train=replace(base.train, rate=1e-3),
    )


def rectified_flow() -> Recipe:
    """Rectified flow, class-conditional: straight lines from noise to image, 10 Euler steps with guidance 2.

    Liu et al. (2022), "Flow Straight and Fast", arXiv:2209.03003; Lipman et al. (2022), arXiv:2210.02747; guidance:
    Ho and Salimans (2022), arXiv:2207.12598, whose w is 1 here; likelihood by its ODE: Song et al. (2021),
    arXiv:2011.13456. Expected: readable digits of the class asked for after half a minute on two CPU cores. With
    `--family.formulation.times logit-normal --family.net.patch 1`, half an hour of two cores with AVX-512 on whole
    MNIST and `--sampler heun --steps 5 --guidance 1`: Fréchet distance 0.35 where real digits have 0.32
    (docs/diffusion.md).
    """
    base = ddpm()
    return replace(
        base,
        family=DiffusionConfig(formulation=RectifiedFlow(), likelihood="ode"),
        sample={"steps": 10, "sampler": "euler", "guidance": 2.0},
    )


def ddpm_cifar10() -> Recipe:
    """DDPM for CIFAR-10 (32x32 colour) on GPUs with the paper's settings: 35.7 million parameters, 800k steps.

    Ho et al. (2020), appendix B: width 128, multiples 1-2-2-2, two blocks, attention at 16, dropout 0.1, Adam 2e-4,
    batch 128, unconditional; 5,000 steps of warm-up and clipping at 1 as in their code (from memory). Not run here. The
    paper's FID is 3.17 with 1000 steps that add noise of variance beta; our ancestral sampler adds the posterior's
    variance, for which Song et al. (2021a, table 1, eta = 1, from memory) report 4.73 where they have 3.17 for the
    other. Cost in the paper: 10.6 hours of a TPU v3-8, "similar to 8 V100".
    """
    return Recipe(
        family=DiffusionConfig(net=AttentionUNetConfig(), conditional=False),
        train=TrainSettings(batch=128, rate=2e-4, schedule="constant", warmup=5_000 * 128, steps=800_000),
        sample={"steps": 1000, "sampler": "ancestral"},
    )


def rectified_flow_cifar10() -> Recipe:
    """Rectified flow for CIFAR-10 (32x32 colour) on GPUs: DDPM's network, 400k steps, 100 Euler steps to sample.

    Liu et al. (2022), arXiv:2209.03003, and Lipman et al. (2022), arXiv:2210.02747, with the settings of TorchCFM's
    independent coupling (Tong et al. 2023, arXiv:2302.00482): Adam 2e-4 after 5,000 steps of warm-up, batch 128, heads
    of 64 channels, unconditional. Not run here. Expected: FID near 3.6 by TorchCFM (from memory; 3.5 with optimal
    transport and an adaptive solver is in its README, a user measured 3.8: its issue #105), 2.58 with a larger network
    in Liu et al. (from memory). Cost by that user: 19 hours of one RTX 4090, or about 60 of one V100.
    """
    base = ddpm_cifar10()
    return replace(
        base,
        family=DiffusionConfig(formulation=RectifiedFlow(), net=AttentionUNetConfig(head=64), conditional=False),
        train=replace(base.train, steps=400_000),
        sample={"steps": 100, "sampler": "euler"},
    )


def ddpm_celeba64() -> Recipe:
    """DDPM for CelebA at 64x64 on GPUs, as DDIM was measured on it: 78.7 million parameters, 500k steps.

    Song et al. (2021a), "Denoising Diffusion Implicit Models", arXiv:2010.02502, appendix D: Ho et al.'s network with
    a fifth level, multiples 1-2-2-2-4. Batch, rate and 500k steps are from memory. Not run here. Expected, from memory
    of their table 1, on faces cropped as they did: FID 3.51 with 1000 DDIM steps, 6.53 with the 100 set here; 5.98 with
    1000 ancestral steps. The authors state no training time.
    """
    base = ddpm_cifar10()
    return replace(
        base,
        family=DiffusionConfig(net=AttentionUNetConfig(multiples=(1, 2, 2, 2, 4)), conditional=False),
        train=replace(base.train, steps=500_000),
        sample={"steps": 100, "sampler": "ddim"},
    )


def adm_imagenet64() -> Recipe:
    """ADM for ImageNet at 64x64 on many GPUs: 296 million parameters, a thousand classes, 540k steps of batch 2048.

    Dhariwal and Nichol (2021), arXiv:2105.05233, tables 4 and 11: width 192, multiples 1-2-3-4, three blocks, attention
    at 32, 16 and 8 with heads of 64 channels, embedding as scale and shift, resampling in residual blocks, dropout 0.1,
    cosine schedule, Adam 3e-4. Two things are not the paper's: it also learns variances, which are not supported here,
    and guides with a classifier, where a label in ten is dropped here for classifier-free guidance. Not run here.
    Expected: the paper's FID is 2.61 without guidance at 250 steps (from memory) and 2.07 with it (their README); worse
    is likely with fixed variances. Cost: 4,150 V100 hours, from 74 images a second (appendix A, as quoted by others).
    """
    network = AttentionUNetConfig(
        width=192,
        multiples=(1, 2, 3, 4),
        blocks=3,
        attention=(32, 16, 8),
        head=64,
        modulation=True,
        resampling="residual",
    )
    return Recipe(
        family=DiffusionConfig(formulation=DDPM(schedule=Schedule("cosine")), net=network),
        train=TrainSettings(batch=2048, rate=3e-4, schedule="constant", steps=540_000),
        sample={"steps": 250, "sampler": "ancestral"},
    )
