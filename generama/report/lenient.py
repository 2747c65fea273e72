"""Files as they are found: what is missing, cut or of another type becomes an empty value and a note."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def read_log(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The lines that are whole JSON objects; the others are counted in a note."""
    if not path.exists():
        notes.append(f"{path.name} is missing")
        return []
    lines, bad = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            entry, bad = None, bad + 1
        if isinstance(entry, dict):
            lines.append(entry)
    if bad:
        notes.append(f"{path.name}: {bad} {'line is' if bad == 1 else 'lines are'} cut or garbled and left out")
    return lines


def read_object(path: Path, notes: list[str] | None = None, needed: bool = True) -> dict[str, Any]:
    """The JSON object in a file; {} and, for whoever wants to know, a note where there is none but is needed."""
    notes = [] if notes is None else notes
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            notes.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} does not hold a JSON object")
        return {}
    return value


def dict_in(source: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under `key`; {} where there is none."""
    value = source.get(key)
    return value if isinstance(value, dict) else {}


def list_in(source: dict[str, Any], key: str) -> list[Any]:
    """The list under `key`; [] where there is none."""
    value = source.get(key)
    return value if isinstance(value, list) else []


def objects_in(source: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of the list under `key`; what is no object is left out."""
    return [entry for entry in list_in(source, key) if isinstance(entry, dict)]


def text_in(source: dict[str, Any], key: str) -> str:
    """The text under `key`; "" where there is none."""
    value = source.get(key)
    return "" if value is None else str(value)


def number_in(source: dict[str, Any], key: str) -> float | None:
    """The number under `key`, which may be NaN; None where there is none."""
    value = source.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def finite_in(source: dict[str, Any], key: str) -> float | None:
    """The number under `key` where it is finite, else None."""
    value = number_in(source, key)
    return value if value is not None and math.isfinite(value) else None


def integer_in(source: dict[str, Any], key: str) -> int | None:
    """The whole number under `key`; None where there is none."""
    value = finite_in(source, key)
    return None if value is None else int(value)


def integers(values: list[Any]) -> list[int]:
    """Those of the values that are whole numbers."""
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
