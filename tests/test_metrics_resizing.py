"""Resizing as the papers did it, against implementations that are not ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from generama.metrics.resizing import bicubic, bilinear_2015, coloured


def tensorflow_1(image: np.ndarray, side: int) -> np.ndarray:
    """ResizeBilinear of TensorFlow 1 with neither align_corners nor half_pixel_centers, pixel by pixel; (H, W)."""
    height, width = image.shape
    made = np.empty((side, side))
    for i in range(side):
        for j in range(side):
            y, x = i * height / side, j * width / side
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
            below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (x - left)
            made[i, j] = above + (below - above) * (y - top)
    return made


@pytest.mark.parametrize(("height", "width", "side"), [(7, 11, 29), (28, 28, 37), (61, 53, 17), (13, 13, 13)])
def test_bilinear_is_tensorflows_of_2015(height, width, side):
    pixels = torch.randint(256, (2, 3, height, width), dtype=torch.uint8)
    made = bilinear_2015(pixels, side)
    assert made.shape == (2, 3, side, side)
    wanted = tensorflow_1(pixels[1, 2].numpy().astype(float), side)
    assert np.abs(made[1, 2].numpy() - wanted).max() < 1e-3


def test_bilinear_takes_corners_not_centres():
    line = torch.tensor([0, 100], dtype=torch.uint8)[None, None, None].expand(1, 1, 2, 2)
    assert bilinear_2015(line, 4)[0, 0, 0].tolist() == [0, 50, 100, 100]


@pytest.mark.parametrize(("old", "new"), [(8, 128), (28, 128), (32, 224), (97, 31)])
def test_bicubic_is_pils(old, new):
    pixels = torch.randint(256, (1, 3, old, old), dtype=torch.uint8)
    made = bicubic(pixels, new)[0].permute(1, 2, 0).numpy().astype(int)
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    wanted = np.asarray(picture.resize((new, new), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(made - wanted).max() <= 2 and np.abs(made - wanted).mean() < 0.1


def test_grey_is_repeated_and_bytes_come_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    made = coloured(levels.float() / 127.5 - 1)
    assert made.shape == (1, 3, 16, 16) and all(torch.equal(made[:, c], levels[:, 0]) for c in range(3))
