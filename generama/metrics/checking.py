"""Are these the pictures that the data holds? If not, a sentence that says what to do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from generama.core import Spec
from generama.errors import UsageError


def checked(images: Tensor | np.ndarray, spec: Spec) -> Tensor:
    """The images as a tensor (N, C, H, W) of the kind that the data stores, or a sentence that says what to do."""
    images = torch.as_tensor(images)
    if images.ndim != 4 or tuple(images.shape[1:]) != spec.shape:
        raise UsageError(_wrong_shape(tuple(images.shape), spec))
    if len(images) < 2:
        raise UsageError(f"{len(images)} sample has no distribution to measure; make at least 2, better 1,000")
    if spec.levels == 0:
        if not images.is_floating_point() or not bool(images.isfinite().all()):
            raise UsageError("points must be finite floats; look at the samples: the model has probably diverged")
        return images
    if images.dtype != torch.uint8:
        raise UsageError(_wrong_type(images))
    return images


def _wrong_shape(shape: tuple[int, ...], spec: Spec) -> str:
    channels, height, width = spec.shape
    if shape[1:] == (height, width, channels):
        return f"the images {shape} have their channels last; pass images.permute(0, 3, 1, 2)"
    wanted = f"the images have shape {shape}, the data (N, {channels}, {height}, {width})"
    if len(shape) == 4 and shape[2] == shape[3]:
        return f"{wanted}; open the data as they are: --size {shape[2]}{' --grey' if shape[1] == 1 else ''}"
    return f"{wanted}; pass a batch of that shape"


def _wrong_type(images: Tensor) -> str:
    kind = str(images.dtype).removeprefix("torch.")
    if images.is_floating_point() and not bool(images.isfinite().all()):
        return f"images must be uint8 in 0..255; these are {kind} and hold NaN or infinity: the model has diverged"
    low, high = images.min().item(), images.max().item()
    repair = "images.round().clamp(0, 255).to(torch.uint8)"
    if low < 0 and high <= 1.5:
        repair = "generama.pixels.to_bytes(images), which takes [-1, 1]"
    elif high <= 1:
        repair = "(images * 255).round().to(torch.uint8)"
    return f"images must be uint8 in 0..255; these are {kind} from {low:.4g} to {high:.4g}; pass {repair}"
