"""The features of DINOv2 (Oquab et al. 2023, arXiv 2304.07193) and CLIP (Radford et al. 2021), through `transformers`.

Stein et al. 2023 (arXiv 2306.04675) find that distances in DINOv2's features agree with people better than FID does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generama.errors import DataError, UnsafeFile, UsageError
from generama.metrics.features import Features
from generama.metrics.pretrained import PretrainedFeatures, key_of, named
from generama.metrics.resizing import bicubic
from generama.metrics.weights import BUILT_IN, Weights, sha256_of

FILES = ("config.json", "model.safetensors")
SIDE = 224
BATCH = 8
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Published:
    """A model of the hub at one revision, the class of `transformers` that reads it, how its pictures are scaled."""

    name: str
    words: str
    model: str
    repository: str
    revision: str
    size: int  # of model.safetensors, bytes
    sha256: str
    mean: tuple[float, float, float]  # of channels in 0..1
    std: tuple[float, float, float]

    @property
    def weights(self) -> Weights:
        """The file of its weights."""
        url = f"{HUB}/{self.repository}/resolve/{self.revision}/model.safetensors"
        return Weights(self.name, "model.safetensors", self.size, self.sha256, url)

    @property
    def protocol(self) -> str:
        """What its numbers depend on besides the weights."""
        return f"{self.model} 1: bicubic as PIL to {SIDE}, mean {self.mean}, std {self.std}, class token after its norm"


DINOV2 = Published(
    name="dinov2",
    words="DINOv2 ViT-L/14",
    model="Dinov2Model",
    repository="facebook/dinov2-large",
    revision="47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
    size=1_217_522_888,
    sha256="399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
CLIP = Published(
    name="clip",
    words="CLIP ViT-L/14 of OpenAI",
    model="CLIPVisionModel",
    repository="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    size=1_710_540_580,
    sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def dinov2_features(path: Path | None, cache: Path, device: torch.device) -> PretrainedFeatures:
    """1,024 numbers: DINOv2's class token after its layer norm. Weights from the hub, or the folder `path`."""
    return _features(DINOV2, path, device)


def clip_features(path: Path | None, cache: Path, device: torch.device) -> PretrainedFeatures:
    """1,024 numbers: CLIP's class token after its layer norm, before the projection to text's space."""
    return _features(CLIP, path, device)


def _features(published: Published, path: Path | None, device: torch.device) -> PretrainedFeatures:
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            f"'{published.name}' needs the extra 'transformers': pip install 'generama[transformers]'"
        ) from error
    folder = from_hub(published) if path is None else given(published, path)
    digest = sha256_of(folder / "model.safetensors")
    if path is None and digest != published.sha256:
        raise DataError(f"{folder} holds other weights (SHA-256 {digest}): delete it, then {_by_hand(published)}")
    net = loaded(getattr(transformers, published.model), folder).to(device)

    def see(shown: Tensor) -> Features:
        return Features(net(pixel_values=shown).pooler_output)

    name = named(published.name, digest, published.sha256)
    key = key_of(digest, sha256_of(folder / "config.json"), published.protocol)
    note = f"{published.words if name == published.name else path}, pictures at {SIDE}x{SIDE}"
    return PretrainedFeatures(name, note, key, partial(prepared, published), see, device, BATCH)


def prepared(published: Published, pixels: Tensor) -> Tensor:
    """Bytes (B, 3, H, W) -> floats (B, 3, 224, 224) with the mean and scale of the pictures it was trained on."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (published.mean, published.std))
    return (bicubic(pixels, SIDE).float() / 255 - mean) / std


def from_hub(published: Published) -> Path:
    """The folder of the model at its revision: from the hub's cache, else downloaded. Raises DataError."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(published.repository, revision=published.revision, allow_patterns=list(FILES))
    except Exception as error:  # the hub's own errors and the network's
        raise DataError(
            f"{published.repository} is not on this machine and cannot be fetched ({first_line(error)}); "
            f"{_by_hand(published)}"
        ) from error
    return given(published, Path(folder))


def given(published: Published, folder: Path) -> Path:
    """The folder, if it holds what is needed. Raises UnsafeFile where its weights are only pickled, else DataError."""
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing and any(folder.glob("*.bin")):
        raise UnsafeFile(f"{folder} has its weights pickled (.bin), which can run code; {_by_hand(published)}")
    if missing:
        raise DataError(f"{folder} has no {' and no '.join(missing)}; {_by_hand(published)}")
    return folder


def loaded(kind: Any, folder: Path) -> torch.nn.Module:
    """The model in a folder, in float32, with every weight from the file: `transformers` would draw what is missing."""
    try:
        net, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # of many kinds, by what is wrong with the folder
        raise DataError(f"{folder} cannot be read as a {kind.__name__}: {first_line(error)}") from error
    lacking = sorted(map(str, report["missing_keys"])) + sorted(map(str, report.get("mismatched_keys", ())))
    if lacking:
        raise DataError(f"{folder} is no {kind.__name__}: {len(lacking)} weights are missing, the first {lacking[0]}")
    return net.eval().requires_grad_(False)


def first_line(error: Exception) -> str:
    """What an error says first; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _by_hand(published: Published) -> str:
    return (
        f"get config.json and {published.weights.described} from {HUB}/{published.repository} at revision "
        f"{published.revision} and pass --extractor {published.name}:FOLDER; {BUILT_IN}"
    )
