"""What the two players of a GAN minimise, as functions of the discriminator's logits.

Goodfellow et al. (2014), "Generative Adversarial Nets": the discriminator's cross-entropy and the non-saturating
generator loss. Salimans et al. (2016), "Improved Techniques for Training GANs", section 3.4: one-sided label smoothing.
Lim and Ye (2017), "Geometric GAN": the hinge loss.

A logit is the discriminator's output before the sigmoid, (B,): positive where it believes that the image is real.
Every loss is a mean over the batch, in nats for the cross-entropies.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu, softplus


def cross_entropy_discriminator(real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """-[(1-a) log D(x) + a log(1 - D(x))] - log(1 - D(G(z))), D = sigmoid(logit), a = `smoothing` of real labels only.

    Binary cross-entropy of sigmoids, written on logits: -log D = softplus(-logit), -log(1 - D) = softplus(logit).
    """
    on_real = (1 - smoothing) * softplus(-real) + smoothing * softplus(real)
    return on_real.mean() + softplus(fake).mean()


def cross_entropy_generator(fake: Tensor) -> Tensor:
    """-log D(G(z)): non-saturating, so its gradient is strongest where the discriminator is sure (section 3, 2014)."""
    return softplus(-fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))), D being the logit itself."""
    return relu(1 - real).mean() + relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-D(G(z)), D being the logit itself."""
    return -fake.mean()
