"""Editing with a model trained for none of it: pictures from pictures, holes filled, the way back to the noise.

SDEdit (Meng et al. 2022, arXiv:2108.01073), RePaint (Lugmayr et al. 2022, arXiv:2201.09865), DDIM inversion (Song et
al. 2021a, arXiv:2010.02502, section 5.4), spherical interpolation (Shoemake 1985). All of them use a sampler and a
velocity as they are. Letters: x0 picture, eps and z noise, y = (1 - t) x0 + t eps, s the time after t; images (B, C, H,
W). Image i depends on row i and on seed i alone.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from generama.core import Rng
from generama.errors import UsageError
from generama.gaussian.formulations import Velocity
from generama.gaussian.samplers import Sampler, start

ROUNDING = 1e-6  # a grid's 0.6 may lie above 0.6


def image_to_image(
    sampler: Sampler, velocity: Velocity, times: Tensor, rng: Rng, picture: Tensor, strength: float
) -> Tensor:
    """SDEdit (Meng et al. 2022, algorithm 1): noise the picture to the first time <= strength, and sample from there.

    Strength 0 returns the picture; 1, where the first time is 1, is plain sampling. Several seeds and one picture
    (1, C, H, W) make variations of it. Raises UsageError for a strength outside 0..1.
    """
    if not 0 <= strength <= 1:
        raise UsageError(f"strength runs from 0 (the picture itself) to 1 (nothing of it), not {strength:g}")
    later = times[times <= strength + ROUNDING]
    y = torch.lerp(picture, rng.normal(*picture.shape[1:]), later[0])
    return sampler(velocity, y, later, rng) if len(later) > 1 else y


def inpaint(
    sampler: Sampler,
    velocity: Velocity,
    times: Tensor,
    rng: Rng,
    picture: Tensor,
    unknown: Tensor,
    repeats: int = 10,
) -> Tensor:
    """RePaint (Lugmayr et al. 2022, algorithm 1): each step keeps the known pixels, which are the picture noised to s.

    `unknown` (B or 1, 1, H, W) is True where the picture is to be made anew; the other pixels come out exactly. Each
    step is taken `repeats` times, the paper's U, with a jump back to t between, so that both sides come to agree. A
    sampler that remembers earlier steps (dpmpp-2m) starts afresh at each.
    """
    if repeats < 1:
        raise UsageError(f"each step is taken at least once: --repeats 1 or more, not {repeats}")
    shape = picture.shape[1:]
    y = start(times, rng, shape)
    for t, s in pairwise(times):
        for again in range(repeats if s > 0 else 1):
            if again:
                y = noised(y, s, t, rng.normal(*shape))
            known = torch.lerp(picture, rng.normal(*shape), s)
            y = torch.where(unknown, sampler(velocity, y, torch.stack([t, s]), rng), known)
    return y


def noised(y: Tensor, s: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """From y at time s back to a later time t > s: q(y_t | y_s), RePaint's line 10 in straight coordinates."""
    shrunk = (1 - t) / (1 - s)
    return shrunk * y + (t**2 - (shrunk * s) ** 2).sqrt() * z


def invert(sampler: Sampler, velocity: Velocity, times: Tensor, rng: Rng, picture: Tensor, near: float) -> Tensor:
    """y at the first time, from which the sampler comes to this picture: the same ODE, from t = 0 upwards.

    Which is sampling in a mirror, where picture and noise change places: with u = 1 - t, y = (1 - u) eps + u x0, and
    the velocity is -v; so each sampler is its own inverse's method, but for those that draw noise. `near` is the least
    time at which the velocity can be asked.
    """

    def mirrored(y: Tensor, u: Tensor) -> Tensor:
        return -velocity(y, (1 - u).clamp(min=near))

    return sampler(mirrored, picture, 1 - times.flip(0), rng)


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """From noise a (B, C, H, W) at share 0 to b at share 1, (B,), along the great circle (Shoemake 1985).

    The direction turns evenly and the norm changes evenly: noise between two noises of one norm has that norm, where
    the straight line would be too short for the network. Parallel noises are joined by the straight line.
    """
    share = share.view(-1, 1, 1, 1)
    size_a, size_b = (x.square().sum((1, 2, 3), keepdim=True).sqrt() for x in (a, b))
    one, other = a / size_a, b / size_b
    # Half the angle by its two legs: exact for small angles too, where arccos is not.
    legs = [(one + sign * other).square().sum((1, 2, 3), keepdim=True).sqrt() for sign in (-1, 1)]
    angle = 2 * torch.atan2(*legs)
    sine = angle.sin()
    turned = (((1 - share) * angle).sin() * one + (share * angle).sin() * other) / sine
    return torch.where(sine > 1e-6, turned, torch.lerp(one, other, share)) * torch.lerp(size_a, size_b, share)
