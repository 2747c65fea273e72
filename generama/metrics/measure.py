"""One measured number, its floor, and the sentence that says what it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number, or the reason why there is none.

    `floor` is the same number for held-out real pictures: what a perfect generator would get at the same n.
    """

    value: float | None
    floor: float | None = None
    note: str = ""
    low: float | None = None  # the 95 % interval of `value`
    high: float | None = None
