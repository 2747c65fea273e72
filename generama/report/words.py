"""The plain-language comparison: every sentence is made from numbers, carries them, and says when they prove little."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from generama.report.collect import Comparison, Run
from generama.report.table import BY_KEY, SPREAD, Cell, Row, best, floor_of, show


@dataclass(frozen=True)
class Topic:
    """One heading and its sentences."""

    name: str
    sentences: list[str]


@dataclass(frozen=True)
class Card:
    """One fact at a glance."""

    question: str
    answer: str
    number: str
    colour: int


def compare_in_words(rows: list[Row], comparison: Comparison) -> list[Topic]:
    """Stability, quality, diversity, speed, cost, likelihood, control, copying; a topic nobody measured is left out."""
    topics: list[tuple[str, Callable[[list[Row], Comparison], list[str]]]] = [
        ("Stability", _stability),
        ("Quality", _quality),
        ("Diversity", _diversity),
        ("Speed", _speed),
        ("Cost", _cost),
        ("Likelihood", _likelihood),
        ("Control", _control),
        ("Copying", _copying),
    ]
    written = [Topic(name, tell(rows, comparison)) for name, tell in topics]
    return [topic for topic in written if topic.sentences]


def at_a_glance(rows: list[Row]) -> list[Card]:
    """Who is best at the four questions people ask first, where at least two rows answer them."""
    asked = [
        ("frechet", "Closest to the real pictures"),
        ("coverage", "Most of their variety"),
        ("seconds_per_image", "Fastest to sample"),
        ("bits_per_dim", "Best likelihood"),
    ]
    cards = []
    for key, question in asked:
        ranked = _ranked(rows, key)
        winners = [row for row in ranked if row.label in best(rows, key)]
        if winners:
            before = {"frechet": "Fréchet distance ", "coverage": "coverage "}.get(key, "")
            before = "at most " if kind_of(winners[0].cell(key)) == "bound" and key == "bits_per_dim" else before
            after = {"seconds_per_image": " an image", "bits_per_dim": " bits/dim"}.get(key, "")
            number = before + _value(winners[0], key) + after
            cards.append(Card(question, _and([row.label for row in winners]), number, winners[0].colour))
    return cards


def _stability(rows: list[Row], comparison: Comparison) -> list[str]:
    runs = [run for row in rows for run in row.runs]
    total = len(runs) + len(comparison.failed)
    if not total:
        return []
    done = [run for run in runs if run.state == "done"]
    said = [f"{len(done)} of {total} runs finished."]
    lost = [run.folder.name for run in runs if _diverged(run)]
    if lost:
        said.append(f"The log of {_and(lost)} holds a loss that is not a number.")
    moved = [(row, cell) for row in rows if (cell := row.cell("frechet")).spread is not None and cell.mean]
    if moved:
        ranked = sorted(moved, key=lambda pair: _share(pair[1]))
        (least, low), (most, high) = ranked[0], ranked[-1]
        ends = f"least for {least.label} (± {show(_share(low), 'share')} of its mean)"
        ends += f" and most for {most.label} (± {show(_share(high), 'share')})" if most is not least else ""
        seeds = min(cell.n for _, cell in moved)
        said.append(f"From seed to seed the Fréchet distance varies {ends}.")
        if seeds < 5:
            said.append(f"{seeds} seeds are too few to call anyone stable.")
    elif runs:
        said.append(
            "No recipe was measured with more than one seed, so how much luck is in these numbers is not known."
        )
    return said


def _quality(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    ranked = _ranked(rows, "frechet")
    floor = floor_of(rows, "frechet")
    if ranked:
        name = next((run.extractor for run in comparison.runs if run.extractor), "its features")
        beside = f"; held-out pictures against training pictures score {show(floor)}" if floor is not None else ""
        first = ranked[0]
        verb = "comes closest to" if len(ranked) > 1 else "was measured against"
        said.append(
            f"{first.label} {verb} the real pictures, with a Fréchet distance of {_value(first, 'frechet')} "
            f"(features: {name}){beside}."
        )
        if floor is not None and _mean(first, "frechet") <= 1.1 * floor:
            said.append(
                f"That is at the floor: with {comparison.n or 'these'} pictures this measure cannot tell "
                f"{first.label} from real ones."
            )
            precision = first.cell("precision")
            if precision.mean is not None and precision.floor and precision.mean < 0.9 * precision.floor:
                found, real = show(precision.mean, "share"), show(precision.floor, "share")
                said.append(f"Precision can: {found} against {real} for real ones.")
        if len(ranked) > 1:
            said.append(_gap(first, ranked[1], "frechet", floor))
        if len(ranked) > 2:
            times = _mean(ranked[-1], "frechet") / _mean(first, "frechet") if _mean(first, "frechet") > 0 else math.nan
            far = f", {show(times)} times as far as {first.label}" if math.isfinite(times) else ""
            said.append(f"{ranked[-1].label} is farthest, at {_value(ranked[-1], 'frechet')}{far}.")
        if any(row.cell("frechet").note.startswith("unreliable") for row in ranked):
            said.append("There are fewer pictures than feature dimensions, so this distance is unreliable here.")
    kid = _ranked(rows, "kid")
    if len(kid) > 1 and ranked and kid[0].label != ranked[0].label:
        said.append(f"The kernel distance puts another first: {kid[0].label}, with {_value(kid[0], 'kid')}.")
    precise = _ranked(rows, "precision")
    if precise:
        said.append(f"By precision, {_span(precise, 'precision', 'of the samples of', 'lie among real pictures')}.")
    return said + _narrow(precise)


def _narrow(precise: list[Row]) -> list[str]:
    """A precision above that of real pictures is no praise where recall is low."""
    said = []
    for row in precise:
        precision, recall = row.cell("precision"), row.cell("recall")
        if precision.mean is None or precision.floor is None or recall.mean is None or recall.floor is None:
            continue
        if precision.mean > precision.floor and recall.mean < recall.floor / 2:
            real = show(precision.floor, "share")
            said.append(
                f"That {row.label} goes beyond the {real} of held-out pictures there, with a recall of only "
                f"{show(recall.mean, 'share')}, means that it draws typical pictures and leaves out the rest."
            )
    return said


def _gap(first: Row, second: Row, key: str, floor: float | None) -> str:
    """How far second is behind first, and whether that means anything."""
    gap = abs(_mean(second, key) - _mean(first, key))
    spreads = [cell.spread for cell in (first.cell(key), second.cell(key)) if cell.spread is not None]
    if floor is not None and gap < floor:
        return (
            f"{second.label} follows at {_value(second, key)}; the gap of {show(gap)} is smaller than the floor, "
            "so do not read an order into it."
        )
    if spreads and gap <= sum(spreads):
        return (
            f"{second.label} follows at {_value(second, key)}; the gap of {show(gap)} is within what seeds change, "
            "so do not read an order into it."
        )
    once = "" if len(spreads) == 2 else "; with one seed of each, another seed could change the order"
    return f"{second.label} follows at {_value(second, key)}{once}."


def _diversity(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    for key, words in (
        ("recall", "of the real pictures lie among the samples of"),
        ("coverage", "of the real pictures have a sample of"),
    ):
        ranked = _ranked(rows, key)
        if ranked:
            end = "near them" if key == "coverage" else ""
            floor = floor_of(rows, key)
            beside = f" (held-out pictures reach {show(floor, 'share')})" if floor is not None else ""
            said.append(f"By {key}, {_span(ranked, key, words, end)}{beside}.")
    counted = [row for row in rows if row.cell("missing_classes").mean is not None]
    lacking = [row for row in counted if _mean(row, "missing_classes") > 0]
    if lacking:
        parts = [f"{row.label} ({show(_mean(row, 'missing_classes'), 'count')})" for row in lacking]
        said.append(f"Classes are missing from {_and(parts)}.")
    elif counted:
        said.append(f"No class is missing from the samples of {_and([row.label for row in counted])}.")
    told = [row.label for row in counted if row.first.conditional]
    if told:
        said.append(
            f"{_and(told)} {'was' if len(told) == 1 else 'were'} told which class to draw, in equal numbers, "
            "so there a missing class means that the wish was not followed."
        )
    return said


def _speed(rows: list[Row], comparison: Comparison) -> list[str]:
    ranked = _ranked(rows, "seconds_per_image")
    said = []
    if len(ranked) > 1:
        fast, slow = ranked[0], ranked[-1]
        times = _mean(slow, "seconds_per_image") / max(_mean(fast, "seconds_per_image"), 1e-12)
        said.append(
            f"{fast.label} makes an image in {_value(fast, 'seconds_per_image')}{_steps(fast)}, "
            f"{slow.label} in {_value(slow, 'seconds_per_image')}{_steps(slow)}: {show(times)} times as long."
        )
    elif ranked:
        said.append(f"{ranked[0].label} makes an image in {_value(ranked[0], 'seconds_per_image')}{_steps(ranked[0])}.")
    alone = _ranked(rows, "seconds_one")
    if len(alone) > 1:
        said.append(
            f"Asked for one image alone, {alone[0].label} takes {_value(alone[0], 'seconds_one')} "
            f"and {alone[-1].label} {_value(alone[-1], 'seconds_one')}."
        )
    return said


def _steps(row: Row) -> str:
    calls = row.cell("evaluations").mean
    if calls is None:
        return ""
    return f" ({show(calls, 'count')} network evaluation{'' if calls == 1 else 's'})"


def _cost(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    seen = _ranked(rows, "images_seen")
    trained = _ranked(rows, "train_seconds")
    if len(seen) > 1 and _mean(seen[0], "images_seen") > 0:
        times = _mean(seen[-1], "images_seen") / _mean(seen[0], "images_seen")
        if times > 1.05:
            said.append(
                f"Training showed {seen[-1].label} {_value(seen[-1], 'images_seen')} pictures and {seen[0].label} "
                f"{_value(seen[0], 'images_seen')}: {show(times)} times as many for the first."
            )
        else:
            said.append(f"Every recipe saw about {_value(seen[0], 'images_seen')} pictures in training.")
    if len(trained) > 1:
        said.append(
            f"Training took from {_value(trained[0], 'train_seconds')} ({trained[0].label}) "
            f"to {_value(trained[-1], 'train_seconds')} ({trained[-1].label})."
        )
    size = _ranked(rows, "parameters")
    if len(size) > 1:
        said.append(
            f"The smallest has {_value(size[0], 'parameters')} parameters ({size[0].label}), the largest "
            f"{_value(size[-1], 'parameters')} ({size[-1].label}), so an equal budget is not an equal size."
        )
    memory = _ranked(rows, "peak_memory")
    if len(memory) > 1:
        said.append(
            f"Peak memory ran from {_value(memory[0], 'peak_memory')} ({memory[0].label}) "
            f"to {_value(memory[-1], 'peak_memory')} ({memory[-1].label})."
        )
    return said


def _likelihood(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    ranked = _ranked(rows, "bits_per_dim")
    exact = [row for row in ranked if kind_of(row.cell("bits_per_dim")) == "exact"]
    bound = [row for row in ranked if kind_of(row.cell("bits_per_dim")) == "bound"]
    other = [row for row in ranked if row not in exact and row not in bound]
    for group, words in ((exact, "exactly "), (bound, "at most "), (other, "")):
        if group:
            parts = [f"{_value(row, 'bits_per_dim')} bits per dimension for {row.label}" for row in group]
            said.append(f"A held-out picture costs {words}{_and(parts)}.")
    dense = [row for row in rows if "nats per point" in row.cell("bits_per_dim").note]
    said += [f"{row.label} gives held-out points {row.cell('bits_per_dim').note}." for row in dense]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        cell = row.cell("bits_per_dim")
        if cell.mean is None and cell.note and row not in dense and not cell.broken:
            reasons.setdefault(cell.note.removeprefix("not defined: ").rstrip("."), []).append(row.label)
    said += [f"For {_and(labels)} no likelihood is defined: {reason}." for reason, labels in reasons.items()]
    if exact and bound:
        said.append(
            "A bound can lie well above the true value, so one behind an exact number does not prove the worse model."
        )
    return said


def _control(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    told = [row for row in rows if row.first.conditional]
    free = [row for row in rows if row.first.conditional is False]
    if told:
        said.append(f"A class can be asked of {_and([row.label for row in told])}.")
    if free:
        said.append(
            f"{_and([row.label for row in free])} {'was' if len(free) == 1 else 'were'} trained without labels "
            "and cannot be asked for a class."
        )
    guided = [row for row in rows if row.first.options.get("guidance") not in (None, 0, 0.0)]
    if guided:
        parts = [f"{row.label} (guidance {row.first.options['guidance']})" for row in guided]
        said.append(f"Guidance, which trades variety for obedience, was on for {_and(parts)}.")
    ranked = [row for row in _ranked(rows, "conditional_accuracy") if row.first.conditional is not False]
    if ranked:
        spanned = _span(ranked, "conditional_accuracy", "of the samples of", "show the class that was asked for")
        said.append(f"By the classifier, {spanned}.")
    return said


def _copying(rows: list[Row], comparison: Comparison) -> list[str]:
    ranked = _ranked(rows, "memorised")
    if not ranked:
        return []
    floor = floor_of(rows, "memorised")
    beside = (
        f"; for held-out pictures, which cannot be copies, it is {show(floor, 'share')}" if floor is not None else ""
    )
    least, most = (_value(row, "memorised") for row in (ranked[0], ranked[-1]))
    spanned = f"from {least} for {ranked[0].label} to {most} for {ranked[-1].label}"
    if least == most:
        spanned = f"{least} for {_and([row.label for row in ranked])}"
    return [f"The share of samples counted as copies of training pictures is {spanned}{beside}."]


def kind_of(cell: Cell) -> str:
    """ "exact", "bound" or "": what the note of a likelihood says it is."""
    note = cell.note.lower()
    return "bound" if "bound" in note else "exact" if "exact" in note else ""


def _diverged(run: Run) -> bool:
    return any(isinstance(v, float) and not np.isfinite(v) for line in run.log for v in line.values())


def _ranked(rows: list[Row], key: str) -> list[Row]:
    """Rows with a value, best first; smallest first where neither end is good."""
    there = [row for row in rows if row.cell(key).mean is not None]
    return sorted(there, key=lambda row: _mean(row, key), reverse=BY_KEY[key].better == "higher")


def _mean(row: Row, key: str) -> float:
    mean = row.cell(key).mean
    return math.nan if mean is None else mean


def _value(row: Row, key: str) -> str:
    column, cell = BY_KEY[key], row.cell(key)
    return show(cell.mean, column.unit, cell.spread if column.group in SPREAD else None)


def _span(ranked: list[Row], key: str, words: str, end: str) -> str:
    """ "81.0 % of the samples of a lie among real pictures, 40.0 % of those of z"."""
    first, last = ranked[0], ranked[-1]
    text = " ".join(part for part in (_value(first, key), words, first.label, end) if part)
    if len(ranked) == 1:
        return text
    if show(_mean(first, key), "share") == show(_mean(last, key), "share"):
        return text + ", and the same holds for the others"
    return f"{text}; at the other end stands {last.label} with {_value(last, key)}"


def _share(cell: Cell) -> float:
    return (cell.spread or 0.0) / cell.mean if cell.mean else 0.0


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
