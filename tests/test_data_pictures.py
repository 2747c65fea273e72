"""One picture at a time: fixed expected pixels for every mode, and a readable refusal for every broken file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from generama.data.contents import Picture
from generama.data.pictures import decode
from generama.errors import DataError


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(content, name="a.png", size=None, grey=None):
    return decode(Picture(name, lambda: content), size, grey).pixels


def flat(mode, value, **options):
    """A 3x3 picture of one colour, encoded, read back: its one pixel."""
    kind = options.pop("kind", "PNG")
    out = pixels(encoded(Image.new(mode, (3, 3), value), kind, **options), f"a.{kind.lower()}")
    assert (out == out[0, 0]).all() and out.shape[:2] == (3, 3) and out.dtype == np.uint8
    return out[0, 0].tolist()


def test_da04_modes_become_known_pixels():
    assert flat("1", 1) == 255
    assert flat("L", 77) == 77
    assert flat("LA", (100, 255)) == 100
    assert flat("LA", (100, 0)) == 255  # transparent: the white below
    assert flat("LA", (0, 51)) == 204  # one fifth of black on white
    assert flat("RGB", (1, 2, 3)) == [1, 2, 3]
    assert flat("RGB", (9, 9, 9)) == 9  # grey stored as colour is grey
    assert flat("RGBA", (10, 20, 30, 255)) == [10, 20, 30]
    assert flat("RGBA", (10, 20, 30, 0)) == 255
    assert flat("RGBA", (0, 100, 255, 51)) == [204, 224, 255]
    assert flat("RGB", (1, 2, 3), transparency=(1, 2, 3)) == 255
    assert flat("I;16", 65535) == 255
    assert flat("I;16", 257 * 40) == 40
    assert flat("F", 0.5, kind="TIFF") == 128  # 127.5 rounds to even
    assert flat("CMYK", (0, 255, 255, 0), kind="TIFF") == [255, 0, 0]


def test_da04_palettes_with_and_without_transparency():
    image = Image.new("P", (3, 3), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert pixels(encoded(image))[0, 0].tolist() == [200, 100, 50]
    assert pixels(encoded(image, transparency=1))[0, 0].tolist() == 255


@pytest.mark.parametrize(("mode", "value"), [("F", 3.5), ("F", float("nan")), ("I", 70_000)])
def test_da04_numbers_out_of_range_are_refused(mode, value):
    with pytest.raises(DataError, match=r"a\.tiff: pixels of mode .* must lie in"):
        pixels(encoded(Image.new(mode, (3, 3), value), "TIFF"), "a.tiff")


def test_grey_uses_luma_and_arrays_follow_the_same_rules():
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert (pixels(encoded(red), grey=True) == 76).all()
    assert (decode(Picture("x", np.asarray(red)), None, True).pixels == 76).all()
    rgba = np.full((4, 4, 4), (0, 100, 255, 51), np.uint8)
    assert decode(Picture("x", rgba), None, None).pixels[0, 0].tolist() == [204, 224, 255]
    assert decode(Picture("x", np.full((4, 4, 1), 7, np.uint8)), None, None).pixels.shape == (4, 4)


def test_da05_exif_rotation_is_applied():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    out = pixels(encoded(image, exif=exif))
    assert np.array_equal(out, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_da05_first_frame_of_animated_files(kind):
    first, second = Image.new("RGB", (5, 5), (255, 0, 0)), Image.new("RGB", (5, 5), (0, 0, 255))
    content = encoded(
        first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {})
    )
    out = decode(Picture(f"a.{kind.lower()}", lambda: content), None, None)
    assert out.animated and out.pixels[0, 0].tolist() == [255, 0, 0]


def test_da06_centre_crop_and_resize():
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    assert (decode(Picture("x", wide), 4, None).pixels == 200).all()
    assert (decode(Picture("x", wide), 2, None).pixels == 200).all()
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))  # antialiased: neither 0 nor 255 survives
    out = decode(Picture("x", stripes), 8, None).pixels
    assert out.shape == (8, 8) and abs(out.astype(int) - 128).max() < 12
    assert decode(Picture("x", np.full((1, 10_000), 9, np.uint8)), 8, None).pixels.tolist() == [[9] * 8] * 8
    assert decode(Picture("x", np.full((1, 1), 9, np.uint8)), 3, None).pixels.tolist() == [[9] * 3] * 3


def test_large_jpegs_keep_their_colours_when_decoded_at_reduced_size():
    content = encoded(Image.new("RGB", (1200, 800), (200, 40, 90)), "JPEG", quality=95)
    assert abs(pixels(content, "a.jpg", size=32).astype(int) - (200, 40, 90)).max() <= 2


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_da01_truncated_pictures_are_named(kind):
    content = encoded(noise(), kind)
    for cut in (len(content) // 2, 40, 9, 1):
        with pytest.raises(DataError, match=r"folder/b\.\w+ (cannot be read|is not a picture)"):
            pixels(content[:cut], f"folder/b.{kind.lower()}")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"just some text\n", "is not a picture of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture"),
        (encoded(noise(), "JPEG"), "is a JPEG file, though its name says PNG"),
        (encoded(noise(), "ICO"), "is not a picture of a known format"),
        (b"SIMPLE  =                    T / FITS", "is not a picture"),
    ],
)
def test_da01_da02_what_is_not_what_its_name_says(content, says):
    with pytest.raises(DataError, match=rf"b\.png {says}"):
        pixels(content, "b.png")


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    data = b"IDAT" + zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_da02_bombs_are_refused_from_the_header(side):
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 200, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    gif = b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0)
    for content, name in ((png_header(side, side), "b.png"), (bmp, "b.bmp"), (gif + b"\x08\x01\0\0;", "b.gif")):
        with pytest.raises(DataError, match=rf"{name} .*bomb"):
            pixels(content, name)


def test_da03_a_huge_text_chunk_is_refused():
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 80_000_000, zip=True)
    with pytest.raises(DataError, match=r"b\.png cannot be read: Decompressed data too large"):
        pixels(encoded(noise(), pnginfo=text), "b.png")
