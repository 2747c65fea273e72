"""How a number was measured, and whether two numbers were measured alike: unlike ones must not be ranked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from generama.data import Data

SAID = {  # key -> how a difference is told
    "n": "samples",
    "extractor": "feature extractor",
    "data": "data",
    "reference_n": "reference pictures",
    "size": "size in pixels",
    "channels": "colour channels",
    "split": "split of the reference",
}


def protocol(data: Data, extractor: str, n: int, reference: int) -> dict[str, Any]:
    """What decides whether two measurements are comparable, as metrics.json says it; `extractor` is its key."""
    return {
        "n": n,
        "extractor": extractor,
        "data": data.meta.hash,
        "reference_n": reference,
        "size": data.spec.size,
        "channels": data.spec.channels,
        "split": "train",
    }


def rankable(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Why two measurements of these protocols must not be ranked against each other; None where they may be.

    Frechet distances are biased by about c/n, c depending on the model (Chong and Forsyth 2020), and features of other
    weights, data resized otherwise or another reference are another yardstick.
    """
    for key, name in SAID.items():
        if a.get(key) is None or b.get(key) is None:
            return f"it was not recorded which {name} one of them was measured with"
        if a[key] != b[key]:
            return f"{name} differ: {_shown(a[key])} and {_shown(b[key])}"
    return None


def _shown(value: Any) -> str:
    """A number as it is, a hash or a long key by its first letters."""
    return f"{value:,}" if isinstance(value, int) else str(value)[:12]
