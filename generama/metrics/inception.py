"""The features in which the Fréchet Inception distance is defined (Heusel et al. 2017, arXiv 1706.08500)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from generama.errors import DataError
from generama.metrics.features import Features
from generama.metrics.pretrained import PretrainedFeatures, key_of, load_strictly, named
from generama.metrics.resizing import bilinear_2015
from generama.metrics.weights import Weights, open_weights
from generama.nets.inception import Inception

PUBLISHED = Weights(
    "inception",
    "pt_inception-2015-12-05-6726825d.pth",
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
SIDE = 299
BATCH = 8
EPSILON = 1e-3  # of batch norm
PROTOCOL = f"inception 1: bilinear of 2015 to {SIDE}, (byte - 128) / 128, pool3"


def inception_features(path: Path | None, cache: Path, device: torch.device) -> PretrainedFeatures:
    """2,048 numbers: the layer "pool3"; and probabilities of the graph's 1,008 classes, for the Inception score.

    The weights are the published ones, from the cache or by download, or those at `path`: then the name has their
    hash behind it, and no number is called FID. Raises DataError or UnsafeFile as `open_weights` does.
    """
    opened = open_weights(PUBLISHED, path, cache)
    name = named("inception", opened.sha256, PUBLISHED.sha256)
    net = built(opened.tensors, name).to(device).to(memory_format=torch.channels_last)  # pyright: ignore

    def see(shown: Tensor) -> Features:
        pool3, logits = net(shown)
        return Features(pool3, scores=logits.softmax(1))

    whose = "published weights of 2015" if name == "inception" else "weights of one's own, not FID's"
    note = f"Inception-v3 as FID uses it, {whose}, pictures at {SIDE}x{SIDE}"
    return PretrainedFeatures(name, note, key_of(opened.sha256, PROTOCOL), prepared, see, device, BATCH)


def prepared(pixels: Tensor) -> Tensor:
    """Bytes (B, 3, H, W) -> floats (B, 3, 299, 299) in [-1, 0.992], as the graph itself does it."""
    return ((bilinear_2015(pixels, SIDE) - 128) / 128).contiguous(memory_format=torch.channels_last)


def built(tensors: dict[str, Tensor], name: str) -> Inception:
    """The network with weights of the published layout (NAME.conv.weight, NAME.bn.*, fc). DataError for others."""
    try:
        weights = folded(tensors)
    except (KeyError, RuntimeError) as error:
        raise DataError(f"the weights of '{name}' have not the layout of {PUBLISHED.file}: {error}") from error
    with torch.device("meta"):
        net = Inception()
    load_strictly(net, weights, name)
    return net.eval().requires_grad_(False)


def folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batch norm folded into each convolution: gamma (W x - mean) / sqrt(variance + epsilon) + beta as one W and b."""
    weights = {name: tensor.float() for name, tensor in tensors.items() if name.startswith("fc.")}
    for conv in [name.removesuffix(".conv.weight") for name in tensors if name.endswith(".conv.weight")]:
        gamma, beta, mean, variance = (
            tensors[f"{conv}.bn.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / (variance + EPSILON).sqrt()
        weights[f"{conv}.weight"] = (tensors[f"{conv}.conv.weight"].double() * scale[:, None, None, None]).float()
        weights[f"{conv}.bias"] = (beta - mean * scale).float()
    return weights
