"""KID, the kernel distance, from sums over pairs; and how sure it is.

Binkowski et al. (2018), "Demystifying MMD GANs": the unbiased MMD^2 under the kernel (x.y / D + 1)^3. The full
U-statistic (their equation 4): no subsets, no randomness; it can be slightly negative. The variance over new samples
is that of a U-statistic of order two (Hoeffding 1948) with the kernel h(x, x') = k(x, x') - f(x) - f(x'), f the mean
kernel with the real pictures: 4 (n - 2) / (n (n - 1)) zeta_1 + 2 / (n (n - 1)) zeta_2.
"""

from __future__ import annotations

import math

from torch import Tensor

from generama.metrics.distances import checked
from generama.metrics.pairs import Between, Within, between, sides, within


def kid(a: Tensor, b: Tensor) -> float:
    """Kernel distance between features a (N, D) and b (M, D), N, M >= 2 (UsageError)."""
    real, fake = sides(*checked(a, b))
    of_real, of_fake = within(real, 0), within(fake, 0)
    return kid_of(of_real, of_fake, between(real, fake, of_real.radius, of_fake.radius))


def kid_of(real: Within, fake: Within, both: Between) -> float:
    """The same from the sums over all pairs."""
    n, m = len(real.kernel), len(fake.kernel)
    within_real = real.kernel.sum().item() / (n * (n - 1))
    within_fake = fake.kernel.sum().item() / (m * (m - 1))
    return within_real + within_fake - 2 * both.kernel.sum().item() / (n * m)


def kid_bias(real: Within, fake: Within) -> float:
    """What the biased squared distance, which is not below 0, has above `kid_of`: each picture's kernel with itself."""
    return sum(
        (side.own - side.kernel.mean().item() / (len(side.kernel) - 1)) / len(side.kernel) for side in (real, fake)
    )


def kid_error(real: Within, fake: Within, both: Between) -> float:
    """Standard error of `kid_of` over new samples, the real pictures staying as they are."""
    n, f = len(fake.kernel), both.kernel / len(real.kernel)
    if n < 4:
        return math.inf
    row = (fake.kernel - (n - 2) * f - f.sum()) / (n - 1)  # mean of h(x, .) for each sample
    crossed = (f * fake.kernel).sum() * 4  # sum of 2 (f + f') k over ordered pairs
    both_f = 2 * (n - 2) * f.square().sum() + 2 * f.sum().square()  # sum of (f + f')^2
    mean = row.mean()
    zeta_2 = (fake.square - crossed + both_f) / (n * (n - 1)) - mean.square()
    zeta_1 = (row.var() - zeta_2 / (n - 1)) / (1 - 2 / (n - 1))
    variance = (4 * (n - 2) * zeta_1.clamp(min=0) + 2 * zeta_2) / (n * (n - 1))
    return math.sqrt(max(0.0, variance.item()))
