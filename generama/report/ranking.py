"""Which rows may be ranked together, which of them are best, and where two measures rank them differently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generama.report.numbers import joined
from generama.report.table import BY_KEY, COLUMNS, MEASURED, Cell, Row
from generama.report.uncertainty import apart, interval, together

HARD = ("data", "size", "channels")  # what even times and costs depend on
SAID = {
    "n": "numbers of samples",
    "extractor": "features",
    "data": "data",
    "reference_n": "numbers of real pictures",
    "size": "picture sizes",
    "resize": "ways to resize",
    "channels": "colours",
    "split": "splits of the data",
}
COMPARED = [column.key for column in COLUMNS if column.better and column.group in ("Quality", "Diversity")]


@dataclass(frozen=True)
class Flip:
    """Two rows that measures put in different orders, each beyond its intervals."""

    a: str  # labels
    b: str
    for_a: list[str]  # keys of the measures that put a first
    for_b: list[str]


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The keys in which two protocols differ; what one of them does not say is no difference."""
    return [key for key in a if key in b and a[key] != b[key]]


def leagues(rows: list[Row]) -> list[list[Row]]:
    """Rows that were measured alike, in groups; a row that was not measured at all stands in the first."""
    found: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: not row.protocol):
        home = next((one for one in found if not any(differences(r.protocol, row.protocol) for r in one)), None)
        if home is None:
            found.append([row])
        else:
            home.append(row)
    return [sorted(league, key=rows.index) for league in found]


def refusals(rows: list[Row]) -> list[str]:
    """Why rows are not ranked together: a sentence for each two leagues, in which they differ."""
    groups = leagues(rows)
    said = []
    for i, one in enumerate(groups):
        for other in groups[i + 1 :]:
            first, second = one[0].protocol, other[0].protocol
            parts = [
                f"{SAID.get(key, key)} ({_plain(first[key])} and {_plain(second[key])})"
                for key in differences(first, second)
            ]
            names = [joined([row.label for row in league]) for league in (one, other)]
            said.append(
                f"{names[0]} and {names[1]} are not ranked together: they were measured with different "
                f"{joined(parts)}, and a difference between them could come from that alone."
            )
    return said


def best(rows: list[Row], key: str) -> set[str]:
    """Labels of the rows that cannot be told apart from the best one.

    None where that is all of them, where the measure has no good end, or where the rows were not measured alike.
    """
    column = BY_KEY[key]
    there = [row for row in rows if row.cell(key).mean is not None]
    if not column.better or len(there) < 2 or not comparable(there, key):
        return set()
    first = ranked(there, key)[0]
    winners = {row.label for row in there if row is first or not apart(row.cell(key), first.cell(key))}
    return winners if len(winners) < len(there) else set()


def ranked(rows: list[Row], key: str) -> list[Row]:
    """Rows with a value, best first; smallest first where neither end is good."""
    there = [(mean, row) for row in rows if (mean := row.cell(key).mean) is not None]
    there.sort(key=lambda pair: pair[0], reverse=BY_KEY[key].better == "higher")
    return [row for _, row in there]


def comparable(rows: list[Row], key: str) -> bool:
    """Whether rows may be ranked by a measure: times and costs do not depend on how samples were measured."""
    first, *rest = [row.protocol for row in rows if row.protocol] or [{}]
    matter = None if BY_KEY[key].group in MEASURED else HARD
    return not any(matter is None or name in matter for other in rest for name in differences(first, other))


def ties(rows: list[Row], key: str) -> list[list[str]]:
    """Groups of labels of which no two can be told apart by a measure, the best first."""
    if not comparable(rows, key):
        return []
    found = together({row.label: row.cell(key) for row in ranked(rows, key)})
    return found[::-1] if BY_KEY[key].better == "higher" else found


def flips(rows: list[Row]) -> list[Flip]:
    """Pairs of rows that two measures of quality or diversity put in opposite orders, both beyond their intervals."""
    found = []
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            told = [key for key in COMPARED if comparable([a, b], key) and _told(a.cell(key), b.cell(key))]
            for_a = [key for key in told if ranked([a, b], key)[0] is a]
            for_b = [key for key in told if key not in for_a]
            if for_a and for_b:
                found.append(Flip(a.label, b.label, for_a, for_b))
    return found


def _told(a: Cell, b: Cell) -> bool:
    """Apart, and by intervals: without any a flip proves nothing."""
    return interval(a) is not None and interval(b) is not None and apart(a, b)


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)[:40]
