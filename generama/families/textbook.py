"""What textbooks say of a family, stated in the family's own file, so that a comparison can hold it against numbers.

The aspects are those in which books compare the families: Tomczak (2022), "Deep Generative Modeling", chapter 1; Prince
(2023), "Understanding Deep Learning", chapter 14; Bond-Taylor et al. (2022), "Deep Generative Modelling: A Comparative
Review", arXiv:2103.04922; Xiao et al. (2022), "Tackling the Generative Learning Trilemma with Denoising Diffusion
GANs", arXiv:2112.07804. Worded here from memory, not quoted; the ratings are our reading of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Claim:
    """A few words, and where families are ranked by it: 3 good, 2 in between, 1 the weak side."""

    words: str
    rating: Literal[1, 2, 3]


@dataclass(frozen=True)
class Textbook:
    """The claims about one family."""

    stability: Claim  # of training
    sampling_speed: Claim
    quality: Claim
    diversity: Claim
    training_cost: Claim
    likelihood: Literal["exact", "bound", "none"]
    latent_space: str
    difficulty: str  # what is hard about it
    ailments: Sequence[str] = ()  # keys of the findings of a diagnosis in which that difficulty shows
