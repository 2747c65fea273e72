"""One measured number, its floor, how sure it is, and the sentence that says what it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number, or the reason why there is none.

    `floor` is the same number for held-out real pictures: what a perfect generator would get at the same n.
    `low` and `high` bound 95 % of what other samples of the same model would have given at this n (bootstrap.py).
    """

    value: float | None
    floor: float | None = None
    note: str = ""
    low: float | None = None
    high: float | None = None
