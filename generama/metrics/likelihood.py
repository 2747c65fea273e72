"""Bits per dimension of held-out pictures (Theis et al. 2016, section 3.1), and what kind of number each is.

A family says of itself whether its log-probability is exact, a lower bound, importance-weighted (Burda et al. 2016) or
that of its probability-flow ODE (Song et al. 2021), and whether the levels were dequantised first.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from generama.core import Condition, Estimate, Generator, Likelihood, Spec
from generama.errors import NotDefined
from generama.metrics.bootstrap import around, standard_error
from generama.metrics.choice import choose
from generama.metrics.measure import Measure

if TYPE_CHECKING:
    from generama.data.shards import Split

BATCH = 50
KINDS: dict[Estimate, str] = {
    "exact": "exact",
    "bound": "bound: the true value is lower",
    "importance-weighted": "importance-weighted: the true value is lower, and nearer than the bound",
    "probability-flow ODE": "by the probability-flow ODE",
}
DEQUANTISATION = {
    "none": "; no dequantisation",
    "uniform": ", of the picture with uniform noise added (uniform dequantisation)",
}


def bits_per_dim(nats: float, dims: int) -> float:
    """-log p / (D ln 2), for log-probability in nats per image of D numbers. A uniform 8-bit model has 8."""
    return -nats / (dims * math.log(2))


@torch.no_grad()
def held_out_bits(generator: Generator, held_out: Split, *, most: int = 500, patience: float = 30.0) -> Measure:
    """Mean bits per dimension of at most `most` held-out pictures, or the reason why there is none.

    Conditional models are given the true label. Estimates that draw random numbers are seeded batch by batch. No new
    batch starts after `patience` seconds; the note says how many pictures were used. Continuous points (no levels)
    have densities, for which bits/dim depends on the unit: their nats per point stand in the note alone.
    """
    if not isinstance(generator, Likelihood):
        return Measure(None, None, "not defined: this family gives no probability of an image")
    spec, start, found = generator.spec, time.monotonic(), []
    device = next((p.device for p in getattr(generator, "parameters", lambda: ())()), torch.device("cpu"))
    chosen = choose(len(held_out), most)
    with torch.random.fork_rng(devices=[]):
        for first in range(0, len(chosen), BATCH):
            if found and time.monotonic() - start > patience:
                break
            torch.manual_seed(first)
            batch = held_out.batch(chosen[first : first + BATCH]).to(device)
            try:
                found.append(generator.log_prob(batch.images, batch.cond if spec.classes else Condition()).cpu())
            except NotDefined as reason:
                return Measure(None, None, f"not defined: {reason}")
    nats = torch.cat(found).double()  # (n,)
    if not bool(nats.isfinite().all()):
        wrong = int((~nats.isfinite()).sum())
        return Measure(None, None, f"{wrong} of {len(nats)} held-out log-probabilities not finite")
    used = f"n = {len(nats)} held-out" + (", label given" if spec.classes else "")
    return _summary(nats, spec, generator, used)


def _summary(nats: torch.Tensor, spec: Spec, generator: Likelihood, used: str) -> Measure:
    """Mean bits/dim, its interval over the pictures, and what kind of number it is."""
    mean, error = nats.mean().item(), standard_error(nats)
    if not spec.levels:
        kind = "lower bound" if generator.likelihood == "bound" else generator.likelihood
        return Measure(None, None, f"{mean:.3f} ± {error:.3f} nats per point ({kind}; {used})")
    bits, spread = bits_per_dim(mean, spec.dims), error / (spec.dims * math.log(2))
    kind = KINDS[generator.likelihood] + DEQUANTISATION[generator.dequantisation]
    return Measure(bits, None, f"{kind}; ± {spread:.3f} standard error; {used}", *around(bits, spread))
