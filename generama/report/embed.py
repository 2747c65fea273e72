"""Arrays and picture files -> what an HTML file can carry inside itself: data URIs."""

from __future__ import annotations

import base64
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from generama.report.records import Run

# What a damaged .npz or PNG can raise; each becomes a sentence in the report.
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, UnidentifiedImageError, MemoryError,
          NotImplementedError, Image.DecompressionBombError)  # fmt: skip
HEAVY = 60_000  # bytes of PNG above which a picture is stored as WebP: photographs, not digits


@dataclass(frozen=True)
class Picture:
    """A picture inside the page; width in CSS pixels."""

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Samples:
    """The generated pictures of a run: (N, H, W, C) uint8, or points (N, 2) float32."""

    images: np.ndarray
    labels: np.ndarray | None

    @property
    def points(self) -> bool:
        """True for 2-D toys."""
        return self.images.ndim == 2


def load_samples(run: Run, limit: int = 2000) -> Samples | None:
    """The first `limit` samples, or None where there are none that can be read."""
    try:
        with np.load(run.samples / "samples.npz", allow_pickle=False) as archive:
            images = archive["images"][:limit]
            labels = archive["labels"][:limit] if "labels" in archive.files else None
    except BROKEN:
        return None
    points = images.ndim == 2 and images.shape[1] == 2 and images.dtype.kind == "f"
    pictures = images.ndim == 4 and images.dtype == np.uint8 and images.shape[3] in (1, 3)
    return Samples(images, labels) if len(images) and (points or pictures) else None


def load_trajectory(run: Run) -> np.ndarray | None:
    """(S, B, H, W, C) uint8 from noise to picture, or None."""
    try:
        with np.load(run.samples / "trajectory.npz", allow_pickle=False) as archive:
            frames = archive["frames"]
    except BROKEN:
        return None
    return frames if frames.ndim == 5 and frames.dtype == np.uint8 and len(frames) and frames.shape[1] else None


def grid(images: np.ndarray, columns: int, alt: str, zoom: int | None = None) -> Picture:
    """(N, H, W, C) uint8, row by row -> one picture with transparent gaps."""
    count, height, width, channels = images.shape
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    gap = 1 + width // 24
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels + 1), np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width, :channels] = image
        sheet[top : top + height, left : left + width, channels] = 255
    scale = zoom or max(1, round(56 / width))
    return Picture(_uri(Image.fromarray(sheet)), sheet.shape[1] * scale, sheet.shape[0] * scale, alt)


def single(image: np.ndarray, alt: str, width: int = 56) -> Picture:
    """(H, W, C) uint8 -> one small picture."""
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    return Picture(_uri(Image.fromarray(flat)), width, width * image.shape[0] // image.shape[1], alt)


def from_file(path: Path, alt: str, widest: int) -> Picture | None:
    """A PNG of the run folder, decoded and written anew so that nothing but pixels enters the page."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            image = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
    except BROKEN:
        return None
    if image.width > widest:
        image = image.resize((widest, max(1, image.height * widest // image.width)), Image.Resampling.BOX)
    return Picture(_uri(image), image.width, image.height, alt)


def _uri(image: Image.Image) -> str:
    """PNG, or WebP where PNG would be heavy."""
    kind, data = "png", _encode(image, "PNG", optimize=True)
    if len(data) > HEAVY:
        kind, data = "webp", _encode(image, "WEBP", quality=75, method=4)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
