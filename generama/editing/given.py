"""What is to be edited: picture files of any kind or held-out pictures, and where in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generama.data.contents import Picture
from generama.data.folder import read_file
from generama.data.pictures import decode
from generama.errors import UsageError
from generama.metrics.choice import choose
from generama.pixels import to_float
from generama.run import Trained
from generama.settings import EditSettings


@dataclass(frozen=True)
class Given:
    """What is edited: pictures (N, C, H, W) in [-1, 1], their names, and their classes (N,) where they are known."""

    pictures: Tensor
    names: list[str]
    label: Tensor | None


def gather(trained: Trained, ask: EditSettings) -> Given:
    """The pictures named, or some held-out ones with their classes, brought to the shape of the run's own."""
    spec = trained.generator.spec
    if ask.pictures and ask.held_out:
        raise UsageError("name pictures or ask for --held-out, not both")
    if ask.held_out:
        data = trained.run.data()
        trained.run.check(data, trained.device)
        if not 0 < ask.held_out <= len(data.held_out):
            raise UsageError(f"--held-out takes 1 to {len(data.held_out)} pictures here, not {ask.held_out}")
        chosen = choose(len(data.held_out), ask.held_out)  # the first ones may all be of one class
        batch = data.held_out.batch(chosen)
        names, images = [f"held-out {i}" for i in chosen.tolist()], batch.images
        label = batch.cond.label if spec.classes else None
    else:
        names, label = [str(path) for path in ask.pictures], None
        read = [read_picture(Path(path), spec.size, spec.channels) for path in ask.pictures]
        images = torch.stack(read) if read else torch.empty(0, *spec.shape)
    return Given(images, names, label if ask.label is None else torch.full((len(images),), ask.label))


def read_picture(path: Path, size: int, channels: int) -> Tensor:
    """A picture of any size and mode as those of a data set: (C, size, size) in [-1, 1]. Raises DataError."""
    pixels = decode(Picture(str(path), partial(read_file, path)), size, grey=channels == 1).pixels
    colour = pixels[..., None] if pixels.ndim == 2 else pixels
    return to_float(torch.from_numpy(np.array(colour))).permute(2, 0, 1).expand(channels, size, size).contiguous()


def unknown_pixels(ask: EditSettings, size: int) -> Tensor:
    """Where the picture is to be made anew, (1, 1, size, size) bool: white in the mask, or inside the box."""
    if (ask.mask is None) == (not ask.box):
        raise UsageError("inpainting needs to know where: --mask FILE (white: made anew) or --box x0,y0,x1,y1")
    if ask.mask is not None:
        return read_picture(ask.mask, size, 1)[None] > 0
    if len(ask.box) != 4 or not (0 <= ask.box[0] < ask.box[2] <= size and 0 <= ask.box[1] < ask.box[3] <= size):
        given = ",".join(str(number) for number in ask.box)
        raise UsageError(f"--box is x0,y0,x1,y1 in pixels with 0 <= x0 < x1 <= {size}, and y alike; got {given}")
    x0, y0, x1, y1 = ask.box
    unknown = torch.zeros(1, 1, size, size, dtype=torch.bool)
    unknown[..., y0:y1, x0:x1] = True
    return unknown
