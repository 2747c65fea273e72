"""Which model to use for a need, by what was measured: the answer, why, its runner-up, what would change it.

One rule a need, in NEEDS. Two numbers whose 95 % intervals overlap are never put into an order without saying so; a run
that failed, or whose distance is no number, is never the answer. docs/choosing.md has the rules in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from generama.errors import UsageError, unknown
from generama.report.table import show

NEAR = 2.0  # "nearly as good": at most so many times the best model's Fréchet distance
UNSURE = ("seconds", "bytes")  # times and amounts of memory: no interval is given of them
ALIKE = 0.1  # times and amounts of memory that differ by less than this share vary as much from day to day
GAINING = 0.2  # share of its kernel distance that a model lost between its last two previews: it was not done


@dataclass(frozen=True)
class Need:
    """What somebody needs most, and the measure that decides."""

    key: str
    higher: bool  # is better
    limited: bool  # to models that are nearly as good as the best
    unit: str
    rule: str
    words: str  # what a figure says, {} standing for the number


NEEDS = {
    "quality": Need(
        "frechet", False, False, "number",
        "the smallest Fréchet distance to the real pictures", "a Fréchet distance of {}",
    ),
    "fast-sampling": Need(
        "seconds_per_image", False, True, "seconds", "the least time per image", "{} an image"
    ),
    "likelihood": Need(
        "bits_per_dim", False, False, "number",
        "the fewest bits per dimension for held-out pictures, of models that have a likelihood",
        "{} bits per dimension",
    ),
    "diversity": Need(
        "coverage", True, False, "share",
        "the largest coverage, the share of real pictures that have a sample near them", "a coverage of {}",
    ),
    "control": Need(
        "conditional_accuracy", True, True, "share",
        "the largest share of samples that show the class which was asked for", "{} of samples of the class asked for",
    ),
    "low-memory": Need(
        "peak_memory", False, True, "bytes", "the least memory at the peak of training", "{} of memory at the peak"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A measured number, with its 95 % interval where there is one, and that of real pictures where it has one."""

    value: float
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    note: str = ""
    bound: bool = False  # the true value is smaller


@dataclass(frozen=True)
class Candidate:
    """What was measured of one recipe under one budget."""

    label: str
    figures: Mapping[str, Figure]
    run: str = ""  # the folder of its best run
    seeds: int = 1  # that were trained and measured
    failed: int = 0  # that were not
    protocol: str = ""  # how it was measured: only what was measured alike is compared
    problems: Sequence[str] = ()  # what its diagnosis calls a problem
    gain: float | None = None  # share of its kernel distance that it lost between its last two previews
    reasons: Mapping[str, str] = field(default_factory=dict)  # why a measure is not there

    def value(self, key: str) -> float | None:
        """The number of a measure; None where there is none."""
        figure = self.figures.get(key)
        return None if figure is None or not math.isfinite(figure.value) else figure.value


@dataclass(frozen=True)
class Recommendation:
    """The answer, for the terminal and the page alike."""

    need: str
    answer: str | None  # None where nothing can be recommended
    rule: str
    sections: list[tuple[str, list[str]]]  # headings, each with its sentences
    run: str = ""  # the folder to sample from


def recommend(candidates: Sequence[Candidate], need: str = "quality") -> Recommendation:
    """The model to use for this need. Raises UsageError for a need nobody knows."""
    if need not in NEEDS:
        raise UsageError(unknown("need", need, NEEDS))
    alike, caveats = comparable(candidates)
    wanted = NEEDS[need]
    order = ranked(alike, need)
    if not order:
        lacking = [f"{c.label}: {c.reasons[wanted.key]}" for c in alike if c.reasons.get(wanted.key)]
        why = lacking or ["No model was measured for it."]
        return Recommendation(need, None, rule_of(need), _filled([("Why", why), ("Keep in mind", caveats)]))
    best = closest(alike)
    answer = order[0]
    sections = [
        ("Because", because(answer, order, alike, need)),
        ("Runner-up", runner_up(answer, order, best, need)),
        ("What would change it", changes(answer, alike, need)),
        ("Keep in mind", doubts(answer, order, best, need) + caveats),
    ]
    return Recommendation(need, answer.label, rule_of(need), _filled(sections), answer.run)


def rule_of(need: str) -> str:
    """The rule of a need in one sentence."""
    wanted = NEEDS[need]
    near = f"among the models whose Fréchet distance is at most {NEAR:g} times the best one's: "
    rule = f"{near if wanted.limited else ''}{wanted.rule}."
    return rule[0].upper() + rule[1:]


def comparable(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[str]]:
    """Those that may be recommended and compared with each other, and a sentence for each that may not."""
    said, sound = [], []
    for c in candidates:
        if c.value("frechet") is None or c.seeds <= c.failed:
            why = f"{c.failed} of its {c.seeds + c.failed} runs failed" if c.failed else "its distance was not measured"
            said.append(f"{c.label} is left out: {why}.")
        else:
            sound.append(c)
    counts = [sum(other.protocol == c.protocol for other in sound) for c in sound]
    common = sound[counts.index(max(counts))].protocol if sound else ""
    apart = [c.label for c in sound if c.protocol != common]
    if apart:
        said.append(f"{_and(apart)} cannot be compared with the others: measured in another way.")
    return [c for c in sound if c.protocol == common], said


def closest(candidates: Sequence[Candidate]) -> Candidate:
    """The one with the smallest Fréchet distance."""
    return min(candidates, key=_distance)


def ranked(candidates: Sequence[Candidate], need: str) -> list[Candidate]:
    """Those that meet the need's conditions, best first."""
    wanted = NEEDS[need]
    limit = NEAR * _distance(closest(candidates)) if wanted.limited and candidates else math.inf
    fit = [c for c in candidates if c.value(wanted.key) is not None and _distance(c) <= limit]
    return sorted(fit, key=lambda c: (_value(c, wanted.key) * (-1 if wanted.higher else 1), _distance(c)))


def told_apart(a: Candidate, b: Candidate, key: str) -> bool | None:
    """Whether two figures differ for certain: their intervals share nothing. None where nobody knows.

    Times and amounts of memory differ where they do so by more than a tenth.
    """
    one, other = a.figures[key], b.figures[key]
    if key in ("seconds_per_image", "peak_memory"):
        return abs(one.value - other.value) > ALIKE * max(one.value, other.value)
    if None in (one.low, one.high, other.low, other.high):
        return None
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
    return one.high < other.low or other.high < one.low


def because(answer: Candidate, order: Sequence[Candidate], alike: Sequence[Candidate], need: str) -> list[str]:
    """Why it is the answer, in numbers."""
    wanted, best = NEEDS[need], closest(alike)
    others = f", the best of {len(order)}" if len(order) > 1 else ", the only one that qualifies"
    floor = answer.figures[wanted.key].floor
    real = f"; real held-out pictures: {show(floor, wanted.unit)}" if floor is not None else ""
    said = [f"{answer.label} has {_says(answer, need)}{others}{real}."]
    if need != "quality":
        times = _distance(answer) / _distance(best) if _distance(best) else math.nan
        beside = "the best there is" if answer is best else f"{times:.1f} times that of {best.label}, the best"
        said.append(f"Its Fréchet distance is {_number(answer, 'frechet', 'number')}, {beside}.")
    far = [c for c in alike if c not in order and c.value(wanted.key) is not None]
    if far:
        named = _and([f"{c.label} ({show(_distance(c))})" for c in sorted(far, key=_distance)])
        said.append(f"Too far from the real pictures: {named}.")
    lacking: dict[str, list[str]] = {}
    for c in alike:
        if c.value(wanted.key) is None:
            lacking.setdefault(c.reasons.get(wanted.key, "not measured"), []).append(c.label)
    return said + [f"Without this measure: {_and(labels)} ({why.rstrip('.')})." for why, labels in lacking.items()]


def runner_up(answer: Candidate, order: Sequence[Candidate], best: Candidate, need: str) -> list[str]:
    """The second, and how far behind it is."""
    if len(order) < 2:
        return ["None: no other model qualifies."]
    second, key = order[1], NEEDS[need].key
    said = f"{second.label}, with {_says(second, need)}"
    if need != "quality":
        said += f" and a Fréchet distance of {show(_distance(second))}"
    apart = told_apart(answer, second, key)
    if apart is False:
        reason = "differ by less than a tenth" if key in ("seconds_per_image", "peak_memory") else "overlap"
        what = "the two" if reason.startswith("differ") else "their 95 % intervals"
        return [f"{said}.", f"{answer.label} and {second.label} cannot be told apart here: {what} {reason}."]
    return [f"{said}."]


def changes(answer: Candidate, alike: Sequence[Candidate], need: str) -> list[str]:
    """What would lead to another answer: another limit, another need, more training, more seeds."""
    said, wanted = [], NEEDS[need]
    sign = -1 if wanted.higher else 1
    there = [c for c in alike if c.value(wanted.key) is not None]
    better = [c for c in there if sign * _value(c, wanted.key) < sign * _value(answer, wanted.key)]
    if wanted.limited and better:
        c = min(better, key=_distance)
        said.append(
            f"If a Fréchet distance of {show(_distance(c))} were good enough: {c.label}, with {_says(c, need)}."
        )
    others: dict[str, list[str]] = {}
    for name in NEEDS:
        order = ranked(alike, name)
        if name != need and order and order[0] is not answer:
            others.setdefault(order[0].label, []).append(name)
    said += [f"For {_and(names)}: {label}." for label, names in others.items()]
    gaining = [c for c in alike if c is not answer and c.gain is not None and c.gain > GAINING]
    if gaining:
        parts = [f"{c.label} ({show(c.gain, 'share')})" for c in gaining]
        said.append(
            f"More training: the kernel distance of {_and(parts)} still fell by so much between the last two previews."
        )
    if any(c.seeds < 2 for c in alike):
        said.append("Another seed may, where models were trained only once: --seeds 3 tells.")
    return said


def doubts(answer: Candidate, order: Sequence[Candidate], best: Candidate, need: str) -> list[str]:
    """What speaks against relying on the answer."""
    said = [f"The diagnosis of {answer.label} finds a problem: {problem.rstrip('.')}." for problem in answer.problems]
    if answer.failed:
        said.append(f"{answer.failed} of {answer.failed + answer.seeds} runs of {answer.label} failed.")
    figure = answer.figures["frechet"]
    if figure.note.startswith("unreliable"):
        said.append(f"The Fréchet distance is {figure.note}.")
    if figure.floor and figure.value > 3 * figure.floor:
        said.append(
            f"Its samples are not yet good: real held-out pictures have a Fréchet distance of {show(figure.floor)}, "
            f"these {show(figure.value)}."
        )
    if need in ("likelihood", "diversity") and _distance(answer) > NEAR * _distance(best):
        measure = "likelihood" if need == "likelihood" else "coverage"
        said.append(
            f"A good {measure} is no good picture: by Fréchet distance {answer.label} is "
            f"{_distance(answer) / _distance(best):.1f} times as far from the real ones as {best.label}."
        )
    if need == "likelihood" and any(c.figures["bits_per_dim"].bound for c in order):
        named = _and([c.label for c in order if c.figures["bits_per_dim"].bound])
        said.append(f"The number of {named} is a bound; the true one is lower, and nobody knows by how much.")
    recall = [c for c in order if c.value("recall") is not None]
    if need == "diversity" and recall:
        first = max(recall, key=lambda c: _value(c, "recall"))
        if first is not answer:
            said.append(f"By recall {first.label} is first, with {_number(first, 'recall', 'share')}.")
    if all(c.seeds == 1 for c in order):
        said.append("Each was trained with one seed only.")
    return said


def _says(c: Candidate, need: str) -> str:
    wanted = NEEDS[need]
    bound = "at most " if c.figures[wanted.key].bound else ""
    return wanted.words.format(bound + _number(c, wanted.key, wanted.unit))


def _number(c: Candidate, key: str, unit: str) -> str:
    """The figure as a person reads it, with its interval."""
    figure = c.figures[key]
    if figure.low is None or figure.high is None or unit in UNSURE:
        return show(figure.value, unit)
    return f"{show(figure.value, unit)} (95 %: {show(figure.low, unit)} to {show(figure.high, unit)})"


def _value(c: Candidate, key: str) -> float:
    value = c.value(key)
    assert value is not None
    return value


def _distance(c: Candidate) -> float:
    return _value(c, "frechet")


def _filled(sections: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    return [(heading, said) for heading, said in sections if said]


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
