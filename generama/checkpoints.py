"""Checkpoints: safetensors and a manifest, whole and verified or invisible; loading one executes nothing.

A checkpoint is a folder named by its step. It is written under a name that nobody lists, flushed to disk and renamed;
an old one is renamed out of sight before it is deleted. So a crash at any moment leaves only whole ones to be seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from generama.errors import CheckpointError, Diverged, ResourceError

MANIFEST = "state.json"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its tensors by file name (without ending), and the facts saved with them."""

    folder: Path
    tensors: dict[str, Tensors]
    facts: dict[str, Any]


def save(folder: Path, step: int, tensors: dict[str, Tensors], facts: dict[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint below `folder` and delete all but the newest `keep`.

    Raises Diverged where a tensor holds a NaN or an infinity, and ResourceError where the disk refuses.
    """
    for values in tensors.values():
        for name, value in values.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise Diverged(f"'{name}' holds a number that is not finite, so it was not saved; lower --train.rate")
    folder.mkdir(parents=True, exist_ok=True)
    draft, final = folder / f".incomplete-{os.getpid()}-{step}", folder / f"{step:09d}"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        sums = {}
        for name, values in tensors.items():
            content = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in values.items()})
            _write(draft / f"{name}.safetensors", content)
            sums[name] = hashlib.sha256(content).hexdigest()
        _write(draft / MANIFEST, json.dumps({"facts": facts, "sha256": sums}, indent=1).encode())
        discard(final)
        draft.rename(final)
        _flush(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ResourceError(f"could not save to {folder}: {error.strerror}; free some space and resume") from error
    for old in complete(folder)[:-keep]:
        discard(old)
    return final


def complete(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, oldest first; not yet verified."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.isdigit() and (p / MANIFEST).is_file())


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None where there is none at all.

    Raises CheckpointError where there are some and every one is damaged.
    """
    damage = []
    for candidate in reversed(complete(folder)):
        try:
            return read(candidate)
        except CheckpointError as error:
            damage.append(str(error))
    if damage:
        raise CheckpointError("; ".join(damage) + "; train again under another --run name")
    return None


def read(folder: Path) -> Checkpoint:
    """Read one checkpoint and check every file against its SHA-256."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        tensors = {}
        for name, digest in manifest["sha256"].items():
            content = (folder / f"{name}.safetensors").read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise CheckpointError(f"{folder / name}.safetensors is damaged: its SHA-256 is not the recorded one")
            tensors[name] = safetensors.torch.load(content)
        return Checkpoint(folder, tensors, manifest["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {folder} cannot be read: {error}") from error


def discard(folder: Path) -> None:
    """Delete a checkpoint, out of sight first; nothing where there is none."""
    if folder.exists():
        trash = folder.with_name(f".trash-{os.getpid()}-{folder.name}")
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Make the renames in a folder durable, where the system lets folders be opened (Windows does not)."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
