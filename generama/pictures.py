"""Images as people look at them: grids, scatter plots of 2-D points, strips and GIFs, each marked as AI-generated."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from generama.files import write_whole
from generama.pixels import to_bytes

GAP = 2  # pixels between the pictures of a grid
BACKGROUND = 255


def grid(images: Tensor, columns: int = 8, scale: int = 1) -> Image.Image:
    """(N, C, H, W) in [-1, 1] -> one picture, row by row; 2-D points (N, 2, 1, 1) become a scatter plot."""
    if images.shape[1:] == (2, 1, 1):
        return scatter(images)
    return enlarged(sheet(to_array(images), columns), scale)


def sheet(tiles: np.ndarray, columns: int) -> np.ndarray:
    """(N, H, W, C) uint8 -> one (H', W', C) array, row by row, with gaps."""
    n, height, width, channels = tiles.shape
    rows = math.ceil(n / columns)
    whole = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), BACKGROUND, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        whole[y : y + height, x : x + width] = tile
    return whole


def scatter(points: Tensor, side: int = 256) -> Image.Image:
    """(N, 2, 1, 1) points in about [-1, 1] -> a square picture with a dot each."""
    paper = np.full((side, side, 1), BACKGROUND, np.uint8)
    x, y = points.reshape(len(points), 2).float().cpu().numpy().T
    column = ((x / 1.25 + 1) / 2 * (side - 1)).round().astype(int)
    row = ((1 - y / 1.25) / 2 * (side - 1)).round().astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            inside = (row + dy >= 0) & (row + dy < side) & (column + dx >= 0) & (column + dx < side)
            paper[(row + dy)[inside], (column + dx)[inside]] = 40
    return enlarged(paper, 1)


def to_array(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] -> (N, H, W, C) uint8: the layout of files."""
    return to_bytes(images).permute(0, 2, 3, 1).cpu().numpy()


def as_stored(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1] as files hold them, uint8 (N, H, W, C); 2-D points as float32 (N, 2)."""
    if images.shape[1:] == (2, 1, 1):
        return images.reshape(len(images), 2).float().numpy()
    return to_array(images)


def enlarged(pixels: np.ndarray, scale: int) -> Image.Image:
    """(H, W, C) uint8 -> a picture with each pixel `scale` times as wide and high."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def save_png(image: Image.Image, path: Path, origin: dict[str, Any]) -> None:
    """Write a PNG whose metadata says that a model made it, and which: run, recipe, seed."""
    info = PngInfo()
    info.add_text("Software", "Generama")
    info.add_text("Source", "AI-generated")
    info.add_itxt("generama", json.dumps({"ai_generated": True, **origin}, ensure_ascii=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    write_whole(path, content.getvalue(), lasting=False)


def save_gif(frames: list[Image.Image], path: Path, seconds: float = 4.0) -> None:
    """Write an animation of `seconds`, the last frame held as long again."""
    each = max(20, round(1000 * seconds / len(frames)))
    durations = [each] * (len(frames) - 1) + [round(1000 * seconds)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, comment=b"AI-generated")


def strip(frames: Tensor) -> Image.Image:
    """(S, B, C, H, W) -> a row for each of the B images, its S frames from left to right."""
    if frames.shape[2:] == (2, 1, 1):
        panels = [np.asarray(scatter(points, side=128))[..., None] for points in frames]
        return enlarged(np.concatenate(panels, axis=1), 1)
    return grid(frames.transpose(0, 1).flatten(0, 1), columns=len(frames))
