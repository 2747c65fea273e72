"""Bits per dimension of held-out pictures (Theis et al. 2016, section 3.1): exact, or a bound, and it is said which."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from generama.core import Condition, Generator, Likelihood
from generama.errors import NotDefined
from generama.metrics.choice import choose
from generama.metrics.measure import Measure

if TYPE_CHECKING:
    from generama.data.shards import Split

BATCH = 50


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
    return _summary(nats, spec.dims, generator.exact, bool(spec.levels), bool(spec.classes))


def _summary(nats: torch.Tensor, dims: int, exact: bool, discrete: bool, labelled: bool) -> Measure:
    """Mean bits/dim with its standard error over the pictures in the note."""
    if not bool(nats.isfinite().all()):
        return Measure(
            None, None, f"{int((~nats.isfinite()).sum())} of {len(nats)} held-out log-probabilities not finite"
        )
    kind = "exact" if exact else "bound: the true value is lower"
    given = ", label given" if labelled else ""
    mean, error = nats.mean().item(), (nats.std() / math.sqrt(len(nats))).item() if len(nats) > 1 else math.nan
    if not discrete:
        kind = "exact" if exact else "lower bound"
        return Measure(None, None, f"{mean:.3f} ± {error:.3f} nats per point ({kind}; n = {len(nats)} held-out{given})")
    bits, spread = bits_per_dim(mean, dims), error / (dims * math.log(2))
    return Measure(bits, None, f"{kind}; ± {spread:.3f} standard error; n = {len(nats)} held-out{given}")
