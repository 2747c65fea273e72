"""How a number was measured: what must be the same in two rows before they are ranked (`report/ranking.py`).

Frechet distances are biased by about c/n, c depending on the model (Chong and Forsyth 2020), and features of other
weights, data resized otherwise or another reference are another yardstick.
"""

from __future__ import annotations

from typing import Any

from generama.data import Data


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
