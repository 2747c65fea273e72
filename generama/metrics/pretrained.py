"""The features of networks that others trained: one network behind its own way of resizing and scaling."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generama.errors import DataError
from generama.metrics.features import Features
from generama.metrics.resizing import coloured

See = Callable[[Tensor], Features]


@dataclass(frozen=True)
class PretrainedFeatures:
    """Extractor: a frozen network on its device, in float32 throughout."""

    name: str
    note: str
    key: str
    prepare: Callable[[Tensor], Tensor]  # bytes (B, 3, H, W) -> what the network is shown
    see: See
    device: torch.device
    batch: int

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Features of images (B, 1 or 3, H, W) in [-1, 1], resized where they lie: the same for all devices."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 would cost three of seven digits
            batches = coloured(images).split(self.batch)
            parts = [self.see(self.prepare(pixels).to(self.device)) for pixels in batches]
        scored = [part.scores for part in parts if part.scores is not None]
        return Features(torch.cat([part.values for part in parts]), scores=torch.cat(scored) if scored else None)


def key_of(*facts: str) -> str:
    """A key that changes with any of the facts: hashes of weights, the protocol with its version."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def named(name: str, digest: str, published: str) -> str:
    """The extractor's name where its weights are the published ones; else the name with their own hash behind it."""
    return name if digest == published else f"{name}-{digest[:8]}"


def load_strictly(net: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Put the tensors in the place of the network's own; DataError where one is missing, misshapen or not finite."""
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise DataError(f"the weights of '{name}' do not fit its network: {first}") from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point()):
        raise DataError(f"the weights of '{name}' hold NaN or infinity")
