"""How sure a number is, and which numbers cannot be told apart.

With one training seed the interval is that of the measurement: what another draw of samples would change. With k >= 2
seeds it is for the mean over all seeds one could train with, mean +- t(k - 1) s / sqrt(k) (Student 1908), and never
narrower than what the measurements alone leave open. Both hold 95 %. Times say more of the machine than of a seed: of
them it is the range that was seen. Numbers whose intervals overlap cannot be told apart, which is stricter than a test
of their difference and can be checked by eye.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generama.report.table import Cell

LEVEL = 0.95
FEW = 5  # training seeds below which s is little more than a guess


def interval(cell: Cell) -> tuple[float, float] | None:
    """(low, high) of the 95 % interval of a cell's mean; None where neither seeds nor measurements give one."""
    if cell.timed and len(cell.values) > 1:
        return min(cell.values), max(cell.values)
    if not cell.values:
        return None
    mean, count = statistics.fmean(cell.values), len(cell.values)
    if count == 1:
        return cell.measured[0] if cell.measured else None
    half = t_quantile(count - 1) * statistics.stdev(cell.values) / math.sqrt(count)
    pairs = list(zip(cell.values, cell.measured, strict=True)) if cell.measured else []
    below = math.hypot(*(value - low for value, (low, _) in pairs)) / count if pairs else 0.0  # seeds are independent
    above = math.hypot(*(high - value for value, (_, high) in pairs)) / count if pairs else 0.0
    return mean - max(half, below), mean + max(half, above)


def apart(a: Cell, b: Cell) -> bool:
    """Whether two measured cells can be told apart: their intervals (or, without any, three digits) share nothing."""
    if not a.values or not b.values:
        return False
    (a_low, a_high), (b_low, b_high) = _ends(a), _ends(b)
    return a_high < b_low or b_high < a_low


def together(cells: Mapping[str, Cell]) -> list[list[str]]:
    """The largest groups of names of which no two can be told apart, lowest first; a name may be in several groups."""
    ends = {name: _ends(cell) for name, cell in cells.items() if cell.values}
    found: list[list[str]] = []
    for point in sorted({low for low, _ in ends.values()}, reverse=True):  # intervals that meet, meet at a lower end
        group = [name for name, (low, high) in ends.items() if low <= point <= high]
        if len(group) > 1 and not any(set(group) <= set(other) for other in found):
            found = [other for other in found if not set(other) <= set(group)] + [group]
    return found[::-1]


def t_quantile(degrees: int) -> float:
    """The 97.5 % point of Student's t: 12.7 for one degree of freedom, 1.96 for endlessly many."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def _ends(cell: Cell) -> tuple[float, float]:
    mean = float(f"{statistics.fmean(cell.values):.3g}")
    return interval(cell) or (mean, mean)
