"""From one picture, encoded or as an array, to bytes of one size: what is opened, what is refused, how it is converted.

Only PNG, JPEG, WebP, BMP, GIF and TIFF are opened, and a picture's size is checked in its header, before its pixels
are decoded. Then, in this order:

    first frame      of an animated or many-page file
    EXIF rotation    applied
    8 bits           see `eight_bit` for every Pillow mode
    centre crop      to a square, and Lanczos resampling with antialiasing (Pillow's), where a size was asked for
    grey             where asked for: Pillow's ITU-R 601 luma
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from generama.data.contents import Picture
from generama.errors import DataError

EXTENSIONS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
FORMATS = tuple(sorted(set(EXTENSIONS.values())))
MOST_PIXELS = 50_000_000  # of one picture; 150 MB as RGB
MOST_BYTES = 64 * 2**20  # of one encoded file


@dataclass(frozen=True)
class Decoded:
    """One picture as bytes: (H, W) uint8 where it is grey, even if stored in colour; else (H, W, 3)."""

    name: str
    pixels: np.ndarray
    animated: bool = False
    stored: str = "array"  # how its source held it: PNG, JPEG ... or as an array
    size: tuple[int, int] | None = None  # width and height there; None: as it is here


@dataclass(frozen=True)
class Header:
    """What an encoded file says of itself."""

    stored: str  # its format
    size: tuple[int, int]  # width and height
    animated: bool  # or of several pages


def decode(picture: Picture, size: int | None, grey: bool | None) -> Decoded:
    """The picture as uint8; cropped and resized to `size` unless None; forced to grey where `grey` is True.

    Raises DataError naming the picture where it cannot be read.
    """
    animated, stored = False, "array"
    if isinstance(picture.content, np.ndarray):
        pixels = picture.content
        was = (pixels.shape[1], pixels.shape[0])
        resize = size is not None and pixels.shape[:2] != (size, size)
        if not resize and (pixels.ndim == 2 or (pixels.shape[2] == 3 and not grey)):
            return Decoded(picture.name, _without_colour(pixels), size=was)
        image = eight_bit(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), picture.name)
    else:
        header, image = _read(picture.content(), picture.name, size)
        animated, stored, was = header.animated, header.stored, header.size
    if size is not None:
        image = fit(image, size)
    if grey:
        image = image.convert("L")
    return Decoded(picture.name, _without_colour(np.asarray(image)), animated, stored, was)


def fit(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square of the picture, resampled to (size, size); untouched where it has that size."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if (width, height) != (side, side):
        image = image.crop((left, top, left + side, top + side))
    return image if side == size else image.resize((size, size), Image.Resampling.LANCZOS)


def eight_bit(image: Image.Image, name: str) -> Image.Image:
    """The picture in mode L or RGB, 8 bits a channel.

    1: 0 and 255. L, RGB: kept. Anything with transparency (LA, PA, RGBA, P or RGB with a transparent colour) is laid
    on white. P: its palette's colours. CMYK, YCbCr, LAB, HSV: Pillow's conversion. I;16, I: 16 bits, divided by 257
    and rounded; F: 0..1, times 255 and rounded. Values of I or F outside their range are refused.
    """
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(image, name)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        return flat.convert("L") if image.mode in ("1", "L", "LA", "La") else flat
    return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def _scaled(image: Image.Image, name: str) -> Image.Image:
    top = 1.0 if image.mode == "F" else 65535.0
    values = np.asarray(image).astype(np.float64)
    if not (values.min() >= 0 and values.max() <= top):  # also refuses NaN
        raise DataError(
            f"{name}: pixels of mode {image.mode} must lie in 0..{top:g}, found {values.min():g}..{values.max():g}; "
            "save it as an 8-bit picture"
        )
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def _read(content: bytes, name: str, size: int | None) -> tuple[Header, Image.Image]:
    """What the file says of itself, and its first frame, upright, in mode L or RGB."""
    if not content:
        raise DataError(f"{name} is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        _check_header(image, name)
        was = image.size
        if size is not None:
            image.draft(None, (2 * size, 2 * size))  # a large JPEG may be decoded smaller, but twice `size` at least
        image.load()
        header = Header(image.format or "", was, getattr(image, "is_animated", False))
        upright = ImageOps.exif_transpose(image)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name} has more than {MOST_PIXELS:,} pixels, which is refused as a bomb") from None
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a picture of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # a damaged file can make Pillow's readers raise nearly anything
        raise DataError(f"{name} cannot be read: {str(error) or type(error).__name__}") from error
    return header, eight_bit(upright, name)


def _check_header(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(f"{name} is {width}x{height}, more than {MOST_PIXELS:,} pixels, which is refused as a bomb")
    if width * height == 0:
        raise DataError(f"{name} is {width}x{height}: it has no pixels")
    extension = name[name.rfind(".") :].lower()
    wanted = EXTENSIONS.get(extension)
    seen = "JPEG" if image.format == "MPO" else image.format  # a JPEG with further pictures inside
    if wanted is not None and wanted != seen:
        raise DataError(f"{name} is a {seen} file, though its name says {wanted}; rename it")


def _without_colour(pixels: np.ndarray) -> np.ndarray:
    """(H, W) where the three channels are the same, else the pixels as they are."""
    if pixels.ndim == 2:
        return pixels
    first = pixels[..., 0]
    return first if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]) else pixels
