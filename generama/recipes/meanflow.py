"""Recipe of MeanFlow."""

from __future__ import annotations

from generama.families.meanflow import MeanFlowConfig
from generama.recipes.recipe import Recipe
from generama.settings import TrainSettings


def meanflow() -> Recipe:
    """MeanFlow, class-conditional: one network call an image, trained from scratch, guidance 2 built in.

    Geng et al. (2025), "Mean Flows for One-step Generative Modeling", arXiv:2505.13447; times, share of pairs and
    adaptive weight are the paper's for ImageNet, network and rate those of `rectified-flow`. A step of training costs
    more than one of `rectified-flow`, an image a twentieth of its network calls. The loss says next to nothing, since
    its weight makes it nearly 1: watch `meanflow/error`. Expected on whole MNIST after twelve minutes of one CPU
    core with `--family.net.width 16 --family.net.patch 1`: Fréchet distance 4.1 in one call and 1.5 in two, where real
    digits have 0.32. The paper reports FID 3.43 on ImageNet at 256 pixels with one call. docs/few-steps.md.
    """
    return Recipe(
        family=MeanFlowConfig(),
        train=TrainSettings(batch=16, rate=3e-3, warmup=1_000),
        sample={"steps": 1},
    )
