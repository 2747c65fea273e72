"""From what a classifier sees in samples and in held-out pictures to measures, and the distances class by class."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from generama.metrics import classes
from generama.metrics.bootstrap import around, around_square, of_share, standard_error
from generama.metrics.kernel import kid
from generama.metrics.measure import Measure
from generama.metrics.neighbours import precision_recall_density_coverage

KEYS = ("inception_score", "class_entropy", "missing_classes", "confidence", "conditional_accuracy")


def class_measures(
    fake: Tensor | None, floor: Tensor | None, asked: Tensor | None, truth: Tensor | None, train: Tensor | None
) -> dict[str, Measure]:
    """What a classifier sees: class probabilities of the samples (n, K) and of held-out pictures (n, K).

    `asked` (n,) classes wished for, `truth` (n,) those of the held-out pictures, `train` (N,) those of the training
    pictures, whose shares are expected of samples nobody wished a class for.
    """
    if fake is None or floor is None or train is None:
        return {key: Measure(None, None, "needs the classifier, which needs labels") for key in KEYS}
    count = fake.shape[1]
    seen, real = classes.histogram(fake), classes.histogram(floor)
    natural = train.bincount(minlength=count)
    expected = natural if asked is None else asked.bincount(minlength=count)
    missing = (classes.missing_classes(seen, expected), classes.missing_classes(real, natural))
    entropy, sure = classes.class_entropy(seen), classes.confidence(fake)
    nearest, farthest = around_square(math.log(count) - entropy, classes.class_entropy_error(seen))
    return {
        "inception_score": _score(fake, floor),
        "class_entropy": Measure(
            entropy,
            classes.class_entropy(real),
            f"nats; at most {math.log(count):.3f}",
            max(0.0, math.log(count) - farthest),
            math.log(count) - nearest,
        ),
        "missing_classes": Measure(*missing, "predicted for under a tenth of their expected share"),
        "confidence": Measure(
            sure,
            classes.confidence(floor),
            "mean top probability",
            *around(sure, standard_error(fake.double().amax(1)), 0, 1),
        ),
        "conditional_accuracy": _accuracy(fake, floor, asked, truth),
    }


def published_score(fake: Tensor | None, floor: Tensor | None) -> dict[str, Measure]:
    """The score in Inception's own classes (n, K), where that is the extractor, in place of the classifier's."""
    if fake is None or floor is None:
        return {}
    score = _score(fake, floor)
    note = f"from 1 to {fake.shape[1]}, in Inception's own classes, over all samples at once"
    return {"inception_score": replace(score, note=note)}


def _score(fake: Tensor, floor: Tensor) -> Measure:
    count, value = fake.shape[1], classes.inception_score(fake)
    low, high = around(math.log(value), standard_error(classes.divergence(fake)), 0, math.log(count))
    note = f"from 1 to {count}; of this classifier, not the published score"
    return Measure(value, classes.inception_score(floor), note, math.exp(low), math.exp(high))


def _accuracy(fake: Tensor, floor: Tensor, asked: Tensor | None, truth: Tensor | None) -> Measure:
    if asked is None or truth is None:
        return Measure(None, None, "the samples were not asked for a class")
    hits = fake.argmax(1) == asked.to(fake.device)
    values = (hits.double().mean().item(), classes.conditional_accuracy(floor, truth))
    return Measure(*values, "recognised as the class asked for", *of_share(hits))


def by_class(
    real: Tensor, fake: Tensor, real_label: Tensor, label: Tensor, count: int, k: int
) -> dict[str, list[float | None]]:
    """Kernel distance, precision, recall and coverage of fake (n, D) and real (N, D) features of each class.

    Samples count as of their `label` (n,). The neighbour measures take as many of the one side as of the other. None
    where a class has too few: 2 for the kernel distance, more than k for the others.
    """
    found: dict[str, list[float | None]] = {key: [None] * count for key in ("kid", "precision", "recall", "coverage")}
    for c in range(count):
        x, y = real[real_label == c], fake[label == c]
        m = min(len(x), len(y))
        if m >= 2:
            found["kid"][c] = kid(x, y)
        if m > k:
            near = precision_recall_density_coverage(x[:m], y[:m], k)
            for key in ("precision", "recall", "coverage"):
                found[key][c] = getattr(near, key)
    return found


def accuracy_by_class(probs: Tensor, asked: Tensor) -> list[float | None]:
    """Share recognised of the samples asked to be of each class; None where none was."""
    hits = (probs.argmax(1) == asked.to(probs.device)).double()
    groups = [hits[asked == c] for c in range(probs.shape[1])]
    return [group.mean().item() if len(group) else None for group in groups]
