"""What the log of training shows: numbers that are not finite, an end that came too early, losses that swing.

A line of log.jsonl holds means over 1/200 of the budget. Losses of two windows of lines are compared by their ranks
(Mann and Whitney 1947), because single lines are noisy and skewed; quality points by Kendall's test of their order
(1938); swings are told from noise by the correlation of neighbouring lines (Bartlett 1946).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from generama.core import Finding
from generama.errors import Unseen

Log = Sequence[Mapping[str, float]]
FEWEST = 20  # lines of which something can be said
SURE = 3.0  # standard errors by which the ranks of two windows of lines differ: chance 0.0013
FALL = 0.01  # of the loss, that the second half of the training must have won to be worth a word
GREAT_FALL = 0.05
GAIN = 0.1  # the same of a distance between samples and data, which is what the loss is for
CHANCE = 0.05  # that quality points without a trend are in such an order
ALIKE = 4.0  # standard errors by which neighbouring lines are more alike than noise is
CROSSINGS = 6  # of the middle: three full swings; fewer are a drift
SWING = 0.3  # from the 10th to the 90th percentile, as a share of the loss: a smaller swing is harmless


def not_finite(log: Log, events: Sequence[str], rate: float | None) -> Iterator[Finding]:
    """Steps with a NaN or an infinity, and where they came from: `events` are lines that training wrote of them."""
    bad = [line for line in log if any(not math.isfinite(value) for value in line.values())]
    skipped = [event for event in events if "was not applied" in event]
    back = [event for event in events if event.startswith("back to step")]
    if not bad and not skipped:
        return
    parts = [skipped[0]] if skipped else []
    if bad:
        keys = [key for key, value in bad[0].items() if not math.isfinite(value)]
        parts.append(
            f"{len(bad)} of {len(log)} lines of the log hold such a number, first {keys[0]} at step {step(bad[0])}"
        )
    if back:
        parts.append(f"training went back to a checkpoint {len(back)} time(s), with half the rate each time")
    pictures = "look at the training pictures that are named; " if "training pictures" in " ".join(skipped) else ""
    lower = f"a lower rate, such as --train.rate {rate / 4:.2g}" if rate else "a lower --train.rate"
    yield Finding(
        "not-finite",
        "problem" if back or len(bad) > len(log) / 10 else "warning",
        "The loss was not a number (NaN or infinity)",
        "; ".join(parts),
        f"{pictures}train with {lower}, a longer --train.warmup, or --train.precision float32",
    )


def failed(status: Mapping[str, Any]) -> Iterator[Finding]:
    """A run that ended with an error."""
    if status.get("state") == "failed":
        yield Finding(
            "failed",
            "problem",
            "The run failed",
            str(status.get("error") or "it left no reason"),
            "mend what the sentence names and train again; what was saved before is whole",
        )


def undertrained(log: Log, points: Sequence[Mapping[str, float]], epochs: float | None) -> Iterator[Finding]:
    """A budget that ended while the model was still improving, by quality over time if there is some, else by loss.

    `points` are those of metrics.json's progress; `epochs` the passes over the data so far.
    """
    measured = [point for point in points if point.get("kid") is not None]
    found = still_better(measured) if len(measured) >= 4 else still_falling(log)
    if found is None:
        return
    passes = f", after {epochs:.1f} passes over the data" if epochs else ""
    yield Finding(
        "under-trained",
        "warning" if found.great else "note",
        "It was still improving when the budget ended",
        found.words + passes,
        "train longer, twice as long to begin with: --train.minutes, or --budget of a comparison",
    )


@dataclass(frozen=True)
class Gain:
    """What the last part of the training has won, in words, and whether it is much."""

    words: str
    great: bool


def still_better(points: Sequence[Mapping[str, float]]) -> Gain | None:
    """Quality points (at least 4) that fall to the end: Kendall's test of their order, and a gain since half-way."""
    values = [point["kid"] for point in points]
    middle = next(point["kid"] for point in points if point["share"] >= 0.5)
    if kendall(values) > CHANCE or middle <= 0 or middle - values[-1] < GAIN * middle:
        return None
    return Gain(
        f"the kernel distance (KID) of {len(points)} looks fell from {values[0]:.3g} to {values[-1]:.3g}; at half the "
        f"budget it was {middle:.3g}",
        True,
    )


def still_falling(log: Log) -> Gain | None:
    """A single loss that in its last fifth ranks below its middle fifth by more than noise. Unseen for a game's."""
    keys = losses(log)
    if len(keys) != 1:
        raise Unseen("the losses of several players show no progress, only who is ahead: measure quality over time")
    middle, end = window(log, keys[0], 0.4, 0.6), window(log, keys[0], 0.8, 1.0)
    if min(len(middle), len(end)) < FEWEST / 2:
        raise Unseen("the log is too short")
    before, after = float(np.median(middle)), float(np.median(end))
    won = (before - after) / max(abs(after), 1e-12)
    sure = ranks_apart(middle, end)
    if sure < SURE or won < FALL:
        return None
    words = (
        f"the loss fell from {before:.4g} at half the budget to {after:.4g} at its end, by {won:.1%}; its lines rank"
    )
    return Gain(f"{words} {sure:.1f} standard errors lower", won > GREAT_FALL)


def ranks_apart(before: np.ndarray, after: np.ndarray) -> float:
    """By how many standard errors values rank lower afterwards: the normal limit of Mann and Whitney's U."""
    n, m = len(before), len(after)
    share = (before[:, None] > after).mean() + 0.5 * (before[:, None] == after).mean()
    return float((share - 0.5) / math.sqrt((n + m + 1) / (12 * n * m)))


def kendall(values: Sequence[float]) -> float:
    """Chance that values in random order fall as often as these: Kendall's test, one-sided, counted out."""
    n = len(values)
    falls = sum(a > b for a, b in combinations(values, 2))
    ways = [1]  # ways[k]: orders of i values with k falling pairs
    for i in range(2, n + 1):
        ways = [sum(ways[max(0, k - i + 1) : k + 1]) for k in range(len(ways) + i - 1)]
    return sum(ways[falls:]) / math.factorial(n)


def oscillating(log: Log) -> Iterator[Finding]:
    """Losses that in the second half of the log swing to and fro, slowly enough not to be noise, and far."""
    half = [line for line in log if line.get("progress", 0) > 0.5]
    if len(half) < FEWEST:
        raise Unseen("the log is too short")
    values = {key: window(half, key, 0.5, 1.0) for key in losses(half)}
    level = max((abs(float(np.median(v))) for v in values.values() if len(v)), default=0.0)
    found = []
    for key, v in values.items():
        if len(v) < FEWEST:
            continue
        alike, crossings = to_and_fro(v)
        low, high = np.quantile(v, [0.1, 0.9])
        if alike > ALIKE and crossings >= CROSSINGS and np.ptp(np.quantile(flattened(v), [0.1, 0.9])) > SWING * level:
            found.append(
                f"the {key.removeprefix('loss/')}'s went between {low:.3g} and {high:.3g} and crossed its middle "
                f"{crossings} times (neighbouring lines are alike by {alike:.0f} standard errors: it is not noise)"
            )
    if found:
        yield Finding(
            "oscillation",
            "warning",
            "The loss swings to and fro instead of settling",
            "in the second half of the training " + "; ".join(found),
            "lower --train.rate, or take less momentum (--train.betas 0.5 0.999); an average of the weights "
            "(--train.average) smooths what is sampled",
        )


def to_and_fro(values: np.ndarray) -> tuple[float, int]:
    """By how many standard errors neighbours are alike (noise: 0), and how often their smoothed course crosses zero."""
    flat = flattened(values)
    alike = (flat[:-1] @ flat[1:]) / max(float(flat @ flat), 1e-30) * math.sqrt(len(flat))
    smooth = np.convolve(flat, np.ones(3) / 3, mode="valid")
    return float(alike), int((smooth[:-1] * smooth[1:] < 0).sum())


def flattened(values: np.ndarray) -> np.ndarray:
    """What is left of values after the parabola through them: a slow drift is no swing."""
    place = np.linspace(-1, 1, len(values))
    return values - np.polyval(np.polyfit(place, values, 2), place)


def losses(log: Log) -> list[str]:
    """The players' losses among the keys of a log."""
    return sorted({key for line in log for key in line if key.startswith("loss/")})


def window(log: Log, key: str, low: float, high: float) -> np.ndarray:
    """The finite values of a key while the progress was in this part of the budget."""
    values = np.array([line[key] for line in log if key in line and low < line.get("progress", -1) <= high])
    return values[np.isfinite(values)]


def step(line: Mapping[str, float]) -> int:
    """The step of a line; 0 where it has none."""
    return int(line.get("step", 0))
