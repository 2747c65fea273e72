"""The plain-language comparison: every sentence is made from numbers, carries them, and says when they prove little."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from generama.report.numbers import joined, show
from generama.report.ranking import best, flips, leagues, ranked
from generama.report.records import Comparison, Run
from generama.report.sentences import mean_of, relative_spread, span, value
from generama.report.table import BY_KEY, Row, floor_of, kind_of, title
from generama.report.uncertainty import FEW, apart, interval

MOST_FLIPS = 4  # pairs of rows that are named where measures disagree


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
    colour: int | None


def compare_in_words(rows: list[Row], comparison: Comparison) -> list[Topic]:
    """What the numbers say, topic by topic; rows that were measured differently are never set against each other."""
    topics: list[tuple[str, Callable[[list[Row], Comparison], list[str]]]] = [
        ("Quality", _quality),
        ("Diversity", _diversity),
        ("Disagreement", _disagreement),
        ("Speed", _speed),
        ("Cost", _cost),
        ("Likelihood", _likelihood),
        ("Control", _control),
        ("Copying", _copying),
    ]
    groups = leagues(rows)
    found = [Topic("Stability", _stability(rows, comparison))]
    for name, tell in topics:
        said = [(group, tell(group, comparison)) for group in groups]
        if len(groups) > 1:
            said = [(group, [f"Among {joined([r.label for r in group])}:", *text]) for group, text in said if text]
        found.append(Topic(name, [sentence for _, text in said for sentence in text]))
    return [topic for topic in found if topic.sentences]


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
        there = ranked(rows, key)
        winners = [row for row in there if row.label in best(rows, key)]
        if winners:
            cards.append(
                Card(question, joined([row.label for row in winners]), _score(winners, key), winners[0].colour)
            )
        elif len(there) > 1 and len(leagues(there)) == 1 and interval(there[0].cell(key)):
            cards.append(Card(question, "No one stands out", f"the intervals of all {len(there)} overlap", None))
    return cards


def _score(winners: list[Row], key: str) -> str:
    """The number on a card."""
    before = f"{title(BY_KEY[key], winners)} " if key in ("frechet", "coverage") else ""
    before = "at most " if kind_of(winners[0].cell(key)) == "bound" and key == "bits_per_dim" else before
    after = {"seconds_per_image": " an image", "bits_per_dim": " bits/dim"}.get(key, "")
    tie = "; they cannot be told apart" if len(winners) > 1 else ""
    return before + value(winners[0], key) + after + tie


def _stability(rows: list[Row], comparison: Comparison) -> list[str]:
    runs = [run for row in rows for run in row.runs]
    total = len(runs) + len(comparison.failed)
    if not total:
        return []
    done = [run for run in runs if run.state == "done"]
    said = [f"{len(done)} of {total} runs finished."]
    lost = [run.folder.name for run in runs if _diverged(run)]
    if lost:
        said.append(f"The log of {joined(lost)} holds a loss that is not a number.")
    moved = [row for row in rows if row.cell("frechet").spread is not None]
    if moved:
        moved.sort(key=lambda row: relative_spread(row, "frechet"))
        least, most = moved[0], moved[-1]
        shares = [show(relative_spread(row, "frechet"), "share") for row in (least, most)]
        ends = f"least for {least.label} (± {shares[0]} of its mean)"
        ends += f" and most for {most.label} (± {shares[1]})" if most is not least else ""
        seeds = min(row.cell("frechet").n for row in moved)
        said.append(f"From seed to seed the Fréchet distance varies {ends}.")
        if seeds < FEW:
            said.append(f"{seeds} seeds are too few to call anyone stable, and make every interval wide.")
    elif runs:
        said.append(
            "No recipe was measured with more than one seed, so how much luck is in these numbers is not known."
        )
    return said


def _quality(rows: list[Row], comparison: Comparison) -> list[str]:
    there = ranked(rows, "frechet")
    said = _distance(there) if there else []
    precise = ranked(rows, "precision")
    if precise:
        words = span(precise, "precision", "of the samples of", "lie among real pictures")
        said.append(f"By precision{_features(precise)}, {words}.")
    return said + _narrow(precise)


def _distance(there: list[Row]) -> list[str]:
    """What the Fréchet distance says, of rows that have one, best first."""
    floor, first = floor_of(there, "frechet"), there[0]
    beside = f"; held-out pictures against training pictures score {show(floor)}" if floor is not None else ""
    verb = "comes closest to" if len(there) > 1 else "was measured against"
    name = first.extractor or "its features"
    said = [
        f"{first.label} {verb} the real pictures, with a Fréchet distance of {value(first, 'frechet')} "
        f"(features: {name}){beside}."
    ]
    if floor is not None and mean_of(first, "frechet") <= 1.1 * floor:
        size = next((f"{run.n:,}" for run in first.runs if run.n), "these")
        said.append(
            f"That is at the floor: with {size} pictures this measure cannot tell {first.label} from real ones."
        )
        precision = first.cell("precision")
        if precision.mean is not None and precision.floor and precision.mean < 0.9 * precision.floor:
            found, real = show(precision.mean, "share"), show(precision.floor, "share")
            said.append(f"Precision can: {found} against {real} for real ones.")
    if len(there) > 1:
        said.append(_gap(first, there[1], "frechet", floor))
    if len(there) > 2:
        times = mean_of(there[-1], "frechet") / mean_of(first, "frechet") if mean_of(first, "frechet") > 0 else math.nan
        far = f", {show(times)} times as far as {first.label}" if math.isfinite(times) else ""
        said.append(f"{there[-1].label} is farthest, at {value(there[-1], 'frechet')}{far}.")
    if any(row.cell("frechet").note.startswith("unreliable") for row in there):
        said.append("There are fewer pictures than feature dimensions, so this distance is unreliable here.")
    return said


def _features(rows: list[Row]) -> str:
    name = next((row.extractor for row in rows if row.extractor), "")
    return f" ({name})" if name else ""


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
    gap = abs(mean_of(second, key) - mean_of(first, key))
    start = f"{second.label} follows at {value(second, key)}"
    both = interval(first.cell(key)) and interval(second.cell(key))
    if both and not apart(first.cell(key), second.cell(key)):
        return f"{start}; the two cannot be told apart, because their intervals overlap."
    if floor is not None and gap < floor and not both:
        return f"{start}; the gap of {show(gap)} is smaller than the floor, so do not read an order into it."
    if min(first.cell(key).n, second.cell(key).n) < 2:
        return f"{start}; with one seed of each, another seed could change the order."
    return f"{start}."


def _disagreement(rows: list[Row], comparison: Comparison) -> list[str]:
    """Pairs that two measures put in opposite orders, each beyond its intervals; the most contested first."""
    sure = sorted(flips(rows), key=lambda flip: -min(len(flip.for_a), len(flip.for_b)))
    said = [
        f"{flip.a} is ahead of {flip.b} by {_measures(flip.for_a)}, and behind by {_measures(flip.for_b)}."
        for flip in sure[:MOST_FLIPS]
    ]
    if len(sure) > MOST_FLIPS:
        said.append(f"The measures disagree on {len(sure) - MOST_FLIPS} more pairs.")
    return said + (["Which of two is better then depends on what you ask for."] if sure else [])


def _measures(keys: list[str]) -> str:
    return joined([BY_KEY[key].name.replace(" ({features})", "").lower().replace("fréchet", "Fréchet") for key in keys])


def _diversity(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    for key, words in (
        ("recall", "of the real pictures lie among the samples of"),
        ("coverage", "of the real pictures have a sample of"),
    ):
        there = ranked(rows, key)
        if there:
            end = "near them" if key == "coverage" else ""
            floor = floor_of(rows, key)
            beside = f" (held-out pictures reach {show(floor, 'share')})" if floor is not None else ""
            said.append(f"By {key}{_features(there)}, {span(there, key, words, end)}{beside}.")
    counted = [row for row in rows if row.cell("missing_classes").mean is not None]
    lacking = [row for row in counted if mean_of(row, "missing_classes") > 0]
    if lacking:
        parts = [f"{row.label} ({show(mean_of(row, 'missing_classes'), 'count')})" for row in lacking]
        said.append(f"Classes are missing from {joined(parts)}.")
    elif counted:
        said.append(f"No class is missing from the samples of {joined([row.label for row in counted])}.")
    told = [row.label for row in counted if row.first.conditional]
    if told:
        said.append(
            f"{joined(told)} {'was' if len(told) == 1 else 'were'} told which class to draw, in equal numbers, "
            "so there a missing class means that the wish was not followed."
        )
    return said


def _speed(rows: list[Row], comparison: Comparison) -> list[str]:
    there = ranked(rows, "seconds_per_image")
    said = []
    if len(there) > 1:
        fast, slow = there[0], there[-1]
        times = mean_of(slow, "seconds_per_image") / max(mean_of(fast, "seconds_per_image"), 1e-12)
        said.append(
            f"{fast.label} makes an image in {value(fast, 'seconds_per_image')}{_steps(fast)}, "
            f"{slow.label} in {value(slow, 'seconds_per_image')}{_steps(slow)}: {show(times)} times as long."
        )
    elif there:
        said.append(f"{there[0].label} makes an image in {value(there[0], 'seconds_per_image')}{_steps(there[0])}.")
    alone = ranked(rows, "seconds_one")
    if len(alone) > 1:
        said.append(
            f"Asked for one image alone, {alone[0].label} takes {value(alone[0], 'seconds_one')} "
            f"and {alone[-1].label} {value(alone[-1], 'seconds_one')}."
        )
    return said


def _steps(row: Row) -> str:
    calls = row.cell("evaluations").mean
    if calls is None:
        return ""
    return f" ({show(calls, 'count')} network evaluation{'' if calls == 1 else 's'})"


def _cost(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    seen = ranked(rows, "images_seen")
    trained = ranked(rows, "train_seconds")
    if len(seen) > 1 and mean_of(seen[0], "images_seen") > 0:
        times = mean_of(seen[-1], "images_seen") / mean_of(seen[0], "images_seen")
        if times > 1.05:
            said.append(
                f"Training showed {seen[-1].label} {value(seen[-1], 'images_seen')} pictures and {seen[0].label} "
                f"{value(seen[0], 'images_seen')}: {show(times)} times as many for the first."
            )
        else:
            said.append(f"Every recipe saw about {value(seen[0], 'images_seen')} pictures in training.")
    if len(trained) > 1:
        said.append(
            f"Training took from {value(trained[0], 'train_seconds')} ({trained[0].label}) "
            f"to {value(trained[-1], 'train_seconds')} ({trained[-1].label})."
        )
    size = ranked(rows, "parameters")
    if len(size) > 1:
        said.append(
            f"The smallest has {value(size[0], 'parameters')} parameters ({size[0].label}), the largest "
            f"{value(size[-1], 'parameters')} ({size[-1].label}), so an equal budget is not an equal size."
        )
    memory = ranked(rows, "peak_memory")
    if len(memory) > 1:
        said.append(
            f"Peak memory ran from {value(memory[0], 'peak_memory')} ({memory[0].label}) "
            f"to {value(memory[-1], 'peak_memory')} ({memory[-1].label})."
        )
    return said


def _likelihood(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    there = ranked(rows, "bits_per_dim")
    exact = [row for row in there if kind_of(row.cell("bits_per_dim")) == "exact"]
    bound = [row for row in there if kind_of(row.cell("bits_per_dim")) == "bound"]
    other = [row for row in there if row not in exact and row not in bound]
    for group, words in ((exact, "exactly "), (bound, "at most "), (other, "")):
        if group:
            parts = [f"{value(row, 'bits_per_dim')} bits per dimension for {row.label}" for row in group]
            said.append(f"A held-out picture costs {words}{joined(parts)}.")
    dense = [row for row in rows if "nats per point" in row.cell("bits_per_dim").note]
    said += [f"{row.label} gives held-out points {row.cell('bits_per_dim').note}." for row in dense]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        cell = row.cell("bits_per_dim")
        if cell.mean is None and cell.note and row not in dense and not cell.broken:
            reasons.setdefault(cell.note.removeprefix("not defined: ").rstrip("."), []).append(row.label)
    said += [f"For {joined(labels)} no likelihood is defined: {reason}." for reason, labels in reasons.items()]
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
        said.append(f"A class can be asked of {joined([row.label for row in told])}.")
    if free:
        said.append(
            f"{joined([row.label for row in free])} {'was' if len(free) == 1 else 'were'} trained without labels "
            "and cannot be asked for a class."
        )
    guided = [row for row in rows if row.first.options.get("guidance") not in (None, 0, 0.0)]
    if guided:
        parts = [f"{row.label} (guidance {row.first.options['guidance']})" for row in guided]
        said.append(f"Guidance, which trades variety for obedience, was on for {joined(parts)}.")
    there = [row for row in ranked(rows, "conditional_accuracy") if row.first.conditional is not False]
    if there:
        spanned = span(there, "conditional_accuracy", "of the samples of", "show the class that was asked for")
        said.append(f"By the classifier, {spanned}.")
    return said


def _copying(rows: list[Row], comparison: Comparison) -> list[str]:
    said = []
    for key, words, floor_words in (
        ("memorised", "counted as copies of training pictures", "for held-out pictures, which cannot be copies, it is"),
        ("authentic", "that are authentic", "for held-out pictures it is"),
        ("duplicates", "with a near twin among the samples", "among held-out pictures it is"),
    ):
        there = ranked(rows, key)
        if not there:
            continue
        floor = floor_of(rows, key)
        beside = f"; {floor_words} {show(floor, 'share')}" if floor is not None else ""
        least, most = (value(row, key) for row in (there[0], there[-1]))
        spanned = f"from {least} for {there[0].label} to {most} for {there[-1].label}"
        if least == most:
            spanned = f"{least} for {joined([row.label for row in there])}"
        said.append(f"The share of samples {words} is {spanned}{beside}.")
    return said


def _diverged(run: Run) -> bool:
    return any(isinstance(v, float) and not np.isfinite(v) for line in run.log for v in line.values())
