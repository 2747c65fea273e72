"""What sampling can be asked for: a sampler, the steps of a grid, guidance; their defaults, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from generama.errors import UsageError, unknown
from generama.gaussian.formulations import Formulation, RectifiedFlow
from generama.gaussian.grids import GRIDS
from generama.gaussian.guidance import ALWAYS
from generama.gaussian.samplers import SAMPLERS, Sampler, asked, ddim


@dataclass(frozen=True)
class Sampling:
    """The options of `Diffusion.sample`; raises UsageError where there is no such thing, or two exclude each other."""

    steps: int = 50
    sampler: str = "ddim"
    grid: str = "uniform"
    eta: float = 0.0
    guidance: float = 1.0
    interval: tuple[float, float] = ALWAYS
    clip: bool = True
    classifier_guidance: float = 0.0
    autoguidance: float = 1.0

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(unknown("sampler", self.sampler, SAMPLERS))
        if self.grid not in GRIDS:
            raise UsageError(unknown("grid", self.grid, GRIDS))
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, not {self.steps}")
        if self.eta and self.sampler != "ddim":
            raise UsageError(f"eta is an option of the sampler ddim; {self.sampler} has none")
        if self.autoguidance != 1 and self.guidance != 1:
            raise UsageError("autoguidance takes the place of guidance by the class: set guidance to 1 (--guidance 1)")

    def times(self, formulation: Formulation) -> Tensor:
        """The grid, (steps + 1,) float64."""
        if self.steps > 1 and formulation == RectifiedFlow(times="one-step"):
            raise UsageError("this model was distilled into one step and can take no more: leave --steps out")
        return GRIDS[self.grid](formulation, self.steps)

    def integrator(self) -> Sampler:
        """The sampler, its eta settled."""
        return partial(ddim, eta=self.eta) if self.eta else SAMPLERS[self.sampler]

    def calls(self, formulation: Formulation, conditional: bool) -> int | None:
        """Evaluations of denoisers for an image, one after another; None where the sampler decides."""
        times = asked(self.sampler, self.times(formulation))
        if times is None:
            return None
        if self.autoguidance != 1:
            return 2 * len(times)
        if self.guidance == 1 or not conditional or (self.guidance == 0 and tuple(self.interval) == ALWAYS):
            return len(times)
        return len(times) + int(((self.interval[0] <= times) & (times <= self.interval[1])).sum())
