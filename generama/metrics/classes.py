"""What a classifier sees in the pictures: Inception-style score (Salimans et al. 2016), classes, confidence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MISSING = 0.1  # a class is missing below this share of what was expected


def inception_score(probs: Tensor) -> float:
    """exp of the mean KL(p(y|x) || p(y)) over class probabilities (N, K); Salimans et al. 2016. From 1 to K.

    With a classifier of one's own it is not the published Inception score, and not comparable with it.
    """
    return divergence(probs).mean().exp().item()


def divergence(probs: Tensor) -> Tensor:
    """KL(p(y|x) || p(y)) of each picture, (N,) nats; also the influence of each on the logarithm of the score."""
    probs = probs.double()
    marginal = probs.mean(0, keepdim=True)
    return (torch.xlogy(probs, probs) - torch.xlogy(probs, marginal)).sum(1)  # 0 log 0 = 0


def histogram(probs: Tensor) -> Tensor:
    """How often each class is the most probable one: (N, K) probabilities -> (K,) int64 counts."""
    return probs.argmax(1).bincount(minlength=probs.shape[1])


def class_entropy(counts: Tensor) -> float:
    """Entropy of the predicted classes in nats, from (K,) counts: log K when all are equally frequent, 0 for one."""
    share = counts.double() / counts.sum()
    return -torch.xlogy(share, share).sum().item()


def class_entropy_error(counts: Tensor) -> float:
    """Standard error of `class_entropy`: that of the mean of -log p (its influence function), (K,) counts of n samples.

    Of K equally frequent classes the entropy is log K - chi^2_(K-1) / 2n, whose variance (K - 1) / 2n^2 is the least.
    """
    n, kept = counts.sum().item(), counts[counts > 0].double()
    p = kept / n
    linear = ((p * p.log().square()).sum() - (p * p.log()).sum().square()).clamp(min=0).item() / n
    quadratic = (len(p) - 1) / (2 * n * n)
    return math.sqrt(max(linear, quadratic))


def missing_classes(counts: Tensor, expected: Tensor) -> int:
    """Classes seen in fewer than a tenth of the samples expected: (K,) counts, (K,) expected weights of any scale."""
    share = expected.double() / expected.sum()
    return int((counts < MISSING * share * counts.sum()).sum())


def confidence(probs: Tensor) -> float:
    """Mean probability of the most probable class, from (N, K)."""
    return probs.double().amax(1).mean().item()


def conditional_accuracy(probs: Tensor, labels: Tensor) -> float:
    """Share of samples recognised as the class (N,) they were asked to be, from (N, K) probabilities."""
    return (probs.argmax(1) == labels.to(probs.device)).double().mean().item()
