"""The variational bound of a DDPM (Ho et al. 2020, equation 5; its terms as in Kingma et al. 2021, equation 13).

Letters: abar_i cumulative product at step i = 0..T-1, x_i = sqrt(abar_i) x0 + sqrt(1 - abar_i) eps,
SNR = abar / (1 - abar).
"""

from __future__ import annotations

import torch
from torch import Tensor

from generama.gaussian.formulations import DDPM, Network, column


def variational_bound(ddpm: DDPM, network: Network, x0: Tensor, levels: int, draws: int = 15) -> Tensor:
    """A lower bound on log P(x0) of images with that many levels, in nats, (B,): an unbiased estimate of it.

    -log P <= KL(x_T) + sum over i of (SNR_{i-1} - SNR_i) / 2 |x0 - x0_hat(x_i)|^2 - log p(x0 | x_0), the reverse steps
    having the posterior's variance. The sum is estimated from `draws` of its T - 1 terms. They fall about as 1 / i, so
    step i is drawn with that probability, one from each of `draws` equal shares of it.
    """
    abar = ddpm.alpha_bar().to(x0.device)
    snr = abar / (1 - abar)
    weight = 1 / torch.arange(1, ddpm.T, dtype=torch.float64, device=x0.device)
    probability = weight / weight.sum()
    cumulative = probability.cumsum(0)
    total = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    for k in range(draws):
        u = (k + torch.rand(len(x0), device=x0.device, dtype=torch.float64)) / draws
        drawn = torch.searchsorted(cumulative, u).clamp(max=ddpm.T - 2)  # 0 stands for step 1
        error = (x0 - estimate(ddpm, network, x0, drawn + 1)).double().square().sum((1, 2, 3))
        total += (snr[drawn] - snr[drawn + 1]) / 2 * error / (probability[drawn] * draws)
    return -(total + prior(abar[-1], x0)) + decoder(ddpm, network, x0, levels)


def estimate(ddpm: DDPM, network: Network, x0: Tensor, step: Tensor) -> Tensor:
    """x0_hat: noise the images to their steps (B,), and let the network guess them back; kept in [-1, 1]."""
    abar = ddpm.alpha_bar().to(x0)[step]
    x = column(abar.sqrt()) * x0 + column((1 - abar).sqrt()) * torch.randn_like(x0)
    eps = network(x, step * (1000 / ddpm.T))
    return ((x - column((1 - abar).sqrt()) * eps) / column(abar.sqrt())).clamp(-1, 1)


def prior(abar: Tensor, x0: Tensor) -> Tensor:
    """KL(N(sqrt(abar) x0, 1 - abar) || N(0, 1)) of the last step, (B,)."""
    return 0.5 * (abar * x0.double().square() - abar - torch.log1p(-abar)).sum((1, 2, 3))


def decoder(ddpm: DDPM, network: Network, x0: Tensor, levels: int) -> Tensor:
    """log p(x0 | x_0): a Gaussian of variance beta_1 around the guess, integrated over each pixel's bin, (B,).

    The outermost bins reach to infinity (Ho et al., equation 13).
    """
    mean = estimate(ddpm, network, x0, torch.zeros(len(x0), dtype=torch.long, device=x0.device)).double()
    sigma, half = (1 - ddpm.alpha_bar()[0]).sqrt().to(x0.device), 1 / (levels - 1)
    upper = torch.special.ndtr((x0 + half - mean) / sigma).where(x0 < 1 - half, 1.0)
    lower = torch.special.ndtr((x0 - half - mean) / sigma).where(x0 > -1 + half, 0.0)
    return (upper - lower).clamp(min=1e-12).log().sum((1, 2, 3))
