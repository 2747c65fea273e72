"""What textbooks claim of each family, beside what was measured here, and whether it held.

A claim that ranks the families holds where the measurements put this one and each family that the books rate otherwise
into the same order as the books do. Numbers that cannot be told apart are no evidence for or against.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from generama.families import FAMILIES
from generama.families.textbook import Claim, Textbook
from generama.report.recommendation import ALIKE, Candidate, Figure
from generama.report.stability import Stability
from generama.report.table import Row, show

NOT_MEASURED = "not measured here"
UNDECIDED = "cannot be told here"
RULE = (
    "A claim held where the measurements order a family as the books do against every family that the books rate "
    "otherwise; in part where they do so against half of them or more. Numbers whose 95 % intervals overlap, and times "
    "that differ by less than a tenth, count neither way."
)
SOURCES = (
    "Tomczak 2022, Deep Generative Modeling; Prince 2023, Understanding Deep Learning; Bond-Taylor et al. 2022, "
    "arXiv:2103.04922; Xiao et al. 2022, arXiv:2112.07804; in our words, from memory"
)


@dataclass(frozen=True)
class Cell:
    """A claim about one row, its figure, and the verdict: yes, in part, no, or why there is none."""

    label: str
    colour: int
    claim: str
    figure: str
    held: str
    why: str = ""  # "3 of 4": against how many families


@dataclass(frozen=True)
class Aspect:
    """One of the eight aspects, with a cell a row."""

    name: str
    measure: str
    cells: list[Cell]


@dataclass(frozen=True)
class Subject:
    """All that is known of one row."""

    row: Row
    family: str
    book: Textbook
    measured: Candidate
    stability: Stability
    seconds: float | None  # to the common quality; infinite where it was not reached, None where nobody looked


def aspects(subjects: Sequence[Subject], level: float | None) -> list[Aspect]:
    """The textbooks' table, an aspect after the other; `level` is the quality that training times are taken to."""
    reach = f"training seconds to a kernel distance of {show(level)}" if level is not None else "training seconds"
    ordinal = [
        ("stability", "Training stability", "Fréchet distance over seeds and learning rates", _stability, _luck),
        ("sampling_speed", "Sampling speed", "time per image", _sampling, _speed),
        ("quality", "Quality", "Fréchet distance", _quality, _distance),
        ("diversity", "Diversity", "recall", _diversity, _recall),
        ("training_cost", "Training cost", reach, _training, _seconds),
    ]
    found = []
    for key, name, measure, figure, ends in ordinal:
        claims = {s.row.label: getattr(s.book, key) for s in subjects}
        cells = [_ordered(s, claims, subjects, figure(s), ends) for s in subjects]
        found.append(Aspect(name, measure, cells))
    rest = [
        Aspect("Likelihood", "bits per dimension of held-out pictures", [_likelihood(s) for s in subjects]),
        Aspect("Latent space", "its size, by the configuration", [_latent(s) for s in subjects]),
        Aspect("What is hard about it", "what the diagnosis finds of it", [_difficulty(s) for s in subjects]),
    ]
    return found + rest


def subjects_of(
    rows: Sequence[Row],
    measured: Mapping[str, Candidate],
    stability: Mapping[str, Stability],
    seconds: Mapping[str, float | None],
) -> list[Subject]:
    """Rows of families that state what textbooks say of them."""
    found = []
    for row in rows:
        book = getattr(FAMILIES.get(row.first.family), "textbook", None)
        if isinstance(book, Textbook) and row.label in measured:
            known = (measured[row.label], stability[row.label], seconds.get(row.label))
            found.append(Subject(row, row.first.family, book, *known))
    return found


Ends = tuple[float, float]  # of an interval of a number of which less is better


def _ordered(s: Subject, claims: Mapping[str, Claim], subjects: Sequence[Subject], figure: str, ends: Any) -> Cell:
    """The cell of a claim that ranks the families."""
    claim, own = claims[s.row.label], ends(s)
    if own is None:
        return Cell(s.row.label, s.row.colour, claim.words, figure, NOT_MEASURED)
    agreed = []
    for other in subjects:
        theirs, rating = ends(other), claims[other.row.label].rating
        if theirs is None or other.family == s.family or rating == claim.rating:
            continue
        if own[1] < theirs[0] or theirs[1] < own[0]:
            agreed.append((own[1] < theirs[0]) == (claim.rating > rating))
    return Cell(s.row.label, s.row.colour, claim.words, figure, *_verdict(agreed))


def _verdict(agreed: Sequence[bool]) -> tuple[str, str]:
    """Whether a claim held, and against how many."""
    if not agreed:
        return UNDECIDED, ""
    share = sum(agreed) / len(agreed)
    return "yes" if share == 1 else "in part" if share >= 0.5 else "no", f"{sum(agreed)} of {len(agreed)}"


def _stability(s: Subject) -> str:
    known = s.stability
    if known.worst is None:
        return ""
    parts = [f"± {show(known.spread, 'share')} over {len(known.seeds)} seeds"] if known.spread is not None else []
    parts += [f"{known.failed} of {known.tried} runs failed"]
    words = {0.5: "half the rate", 2.0: "double the rate"}
    parts += [
        f"{'failed' if math.isinf(factor) else '× ' + show(factor)} at {words.get(rate, f'{rate:g} times the rate')}"
        for rate, factor in known.factors.items()
    ]
    return ", ".join(parts)


def _luck(s: Subject) -> Ends | None:
    return None if s.stability.worst is None else _about(s.stability.worst)


def _sampling(s: Subject) -> str:
    figure = s.measured.figures.get("seconds_per_image")
    return f"{show(figure.value, 'seconds')} an image" if figure else ""


def _speed(s: Subject) -> Ends | None:
    figure = s.measured.figures.get("seconds_per_image")
    return _about(figure.value) if figure else None


def _quality(s: Subject) -> str:
    figure = s.measured.figures.get("frechet")
    if figure is None:
        return "failed" if s.measured.failed else ""
    return show(figure.value) + (f", real pictures {show(figure.floor)}" if figure.floor is not None else "")


def _distance(s: Subject) -> Ends | None:
    return _ends(s.measured.figures.get("frechet"))


def _diversity(s: Subject) -> str:
    known = {key: s.measured.figures.get(key) for key in ("recall", "coverage")}
    return ", ".join(f"{key} {show(figure.value, 'share')}" for key, figure in known.items() if figure)


def _recall(s: Subject) -> Ends | None:
    ends = _ends(s.measured.figures.get("recall"))
    return (-ends[1], -ends[0]) if ends else None


def _training(s: Subject) -> str:
    if s.seconds is None:
        return ""
    spent = s.measured.value("train_seconds")
    return f"not within {show(spent, 'seconds')}" if math.isinf(s.seconds) else f"at most {show(s.seconds, 'seconds')}"


def _seconds(s: Subject) -> Ends | None:
    return None if s.seconds is None else _about(s.seconds)


def _likelihood(s: Subject) -> Cell:
    figure = s.measured.figures.get("bits_per_dim")
    words = {"exact": "exact", "bound": "a lower bound", "none": "none"}[s.book.likelihood]
    if figure is None:
        held = "yes" if s.book.likelihood == "none" and s.measured.seeds else NOT_MEASURED
        return Cell(s.row.label, s.row.colour, words, "none" if held == "yes" else "", held)
    if "probability-flow ODE" in figure.note:  # not what the books' words are about, and more
        return Cell(s.row.label, s.row.colour, words, f"{show(figure.value)} bits, by its ODE", "in part")
    kind = "bound" if figure.bound else "exact"
    text = f"{'at most ' if figure.bound else ''}{show(figure.value)} bits, {kind}"
    return Cell(s.row.label, s.row.colour, words, text, "yes" if kind == s.book.likelihood else "no")


def _latent(s: Subject) -> Cell:
    size = s.row.first.config.get("family", {}).get("latent")
    spec = s.row.first.spec
    numbers = (spec.get("channels") or 0) * (spec.get("size") or 0) ** 2
    figure = f"{size} numbers for an image of {numbers:,}" if size and numbers else ""
    return Cell(s.row.label, s.row.colour, s.book.latent_space, figure, NOT_MEASURED)


def _difficulty(s: Subject) -> Cell:
    looked = [run.findings for run in s.row.runs]
    found = [one for findings in looked for one in findings or ()]
    seen = list(dict.fromkeys(one.title for one in found if one.key in s.book.ailments))
    if not s.book.ailments or all(findings is None for findings in looked):
        return Cell(s.row.label, s.row.colour, s.book.difficulty, "", NOT_MEASURED)
    return Cell(s.row.label, s.row.colour, s.book.difficulty, "; ".join(seen) or "not seen", "yes" if seen else "no")


def _ends(figure: Figure | None) -> Ends | None:
    """The interval of a figure; its three digits where it has none."""
    if figure is None:
        return None
    if figure.low is None or figure.high is None:
        rounded = float(f"{figure.value:.3g}")
        return rounded, rounded
    return figure.low, figure.high


def _about(value: float) -> Ends:
    """What cannot be told from this time or factor: a twentieth on either side."""
    return value * (1 - ALIKE / 2), value * (1 + ALIKE / 2)
