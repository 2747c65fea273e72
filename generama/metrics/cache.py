"""Tensors kept on disk beside the JSON that describes them, so that nothing is computed twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from generama.data.prepare import default_cache
from generama.files import write_json, write_whole


def content_hash(tensor: Tensor) -> str:
    """SHA-256 of a tensor's type, shape and bytes."""
    array = tensor.detach().cpu().contiguous().numpy()
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(array.data)
    return digest.hexdigest()


def store(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, Any]:
    """Write `path`.safetensors, then `path`.json with the facts and the tensors' hash, and return the latter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    facts = {**facts, "sha256": hashlib.sha256(content).hexdigest()}
    write_whole(path.with_name(path.name + ".safetensors"), content)
    write_json(path.with_name(path.name + ".json"), facts)
    return facts


def fetch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What `store` wrote there; None where nothing is, or where it is damaged (it is then made again)."""
    try:
        facts = json.loads(path.with_name(path.name + ".json").read_bytes())
        content = path.with_name(path.name + ".safetensors").read_bytes()
        intact = hashlib.sha256(content).hexdigest() == facts["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (safetensors.torch.load(content), facts) if intact else None


def cache_folder() -> Path:
    """Where classifiers and features are kept unless told otherwise: `metrics`, beside the prepared data."""
    return default_cache().parent / "metrics"
