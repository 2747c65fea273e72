"""Numbers as people read them: three digits, a unit, and an interval where there is one."""

from __future__ import annotations

import math


def show(value: float | None, unit: str = "number") -> str:
    """A number as a person reads it: 0.0123 s -> "12.3 ms", 0.345 as a share -> "34.5 %"."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number"
    size, suffix, places = _style(value, unit)
    return f"{value / size:,.{places}f}{suffix}".replace("-", "−")


def _style(value: float, unit: str) -> tuple[float, str, int]:
    """What to divide by, what to write behind, and how many decimal places."""
    if unit == "share":
        return 0.01, " %", 1
    if unit == "seconds":
        return _measured(
            value, ((3600, " h", 7200), (60, " min", 120), (1, " s", 1), (1e-3, " ms", 1e-3), (1e-6, " µs", 0))
        )
    if unit == "bytes":
        return _measured(value, ((2**30, " GiB", 2**30), (2**20, " MiB", 0)))
    if unit == "count" and value < 1e6:
        return 1.0, "", 0 if float(value).is_integer() or value >= 100 else 1
    return _measured(value, ((1e6, " M", 1e6), (1.0, "", 0)) if unit == "count" else ((1.0, "", 0),))


def _measured(value: float, sizes: tuple[tuple[float, str, float], ...]) -> tuple[float, str, int]:
    """Three significant digits in the first of the (size, suffix, from) that fits."""
    size, suffix, _ = next((one for one in sizes if value >= one[2]), sizes[-1])
    digits = math.floor(math.log10(abs(value / size))) if value else 2
    return size, suffix, min(max(2 - digits, 0), 6)


def show_interval(low: float, high: float, unit: str = "number") -> str:
    """An interval in the unit of its larger end: "12.1–14.6", "80.1–84.0 %", "−0.010 to 0.020"."""
    size, suffix, places = _style(max(abs(low), abs(high)), unit)
    between = " to " if low < 0 else "–"
    return f"{low / size:,.{places}f}{between}{high / size:,.{places}f}{suffix}".replace("-", "−")


def joined(words: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
