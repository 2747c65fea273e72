"""Weights files: found, fetched and checked; what is not the published file is never opened as a pickle."""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from generama.errors import DataError, UnsafeFile
from generama.metrics.weights import Weights, found, open_weights

NOWHERE = "http://127.0.0.1:9/tiny.pth"  # nobody listens there


class Canary:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A cache, a folder of one's own and torch's hub, all empty."""
    folders = [tmp_path / name for name in ("own", "cache/weights", "torch/hub/checkpoints")]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.setenv("GENERAMA_WEIGHTS", str(folders[0]))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return folders


@pytest.fixture
def published(tmp_path):
    """A tiny published file on a server of its own: a file URL."""
    file = tmp_path / "server" / "tiny.pth"
    file.parent.mkdir()
    torch.save({"a": torch.arange(7), "b": torch.ones(2, 3)}, file)
    content = file.read_bytes()
    return Weights("tiny", file.name, len(content), hashlib.sha256(content).hexdigest(), file.as_uri())


def test_a_file_is_fetched_once_and_kept(published, places, tmp_path):
    cache = tmp_path / "cache"
    assert found(published, cache) is None
    opened = open_weights(published, None, cache)
    assert opened.sha256 == published.sha256 and torch.equal(opened.tensors["a"], torch.arange(7))
    assert found(published, cache) == cache / "weights" / "tiny.pth"
    again = open_weights(replace(published, url=NOWHERE), None, cache)
    assert torch.equal(again.tensors["b"], torch.ones(2, 3))
    assert [path.name for path in (cache / "weights").iterdir()] == ["tiny.pth"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_is_found_where_others_leave_it(published, places, tmp_path, place):
    served = tmp_path / "server" / "tiny.pth"
    (places[place] / "tiny.pth").write_bytes(served.read_bytes())
    assert found(published, tmp_path / "cache") == places[place] / "tiny.pth"
    assert open_weights(replace(published, url=NOWHERE), None, tmp_path / "cache").sha256 == published.sha256


def test_offline_the_error_says_all_that_is_needed(published, places, tmp_path):
    offline = replace(published, url=NOWHERE)
    with pytest.raises(DataError) as error:
        open_weights(offline, None, tmp_path / "cache")
    assert error.value.exit_code == 3
    wanted = (
        "tiny.pth",
        f"{published.size:,} bytes",
        published.sha256,
        NOWHERE,
        "--extractor tiny:PATH",
        "efficientnet",
    )
    assert all(part in str(error.value) for part in wanted) and "not comparable with papers" in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.pth"))


def test_a_changed_file_is_refused_wherever_it_comes_from(published, places, tmp_path):
    served = tmp_path / "server" / "tiny.pth"
    served.write_bytes(served.read_bytes()[:-1] + b"!")
    digest = hashlib.sha256(served.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"not the published file.*{digest}.*not opened"):
        open_weights(published, None, tmp_path / "cache")  # fetched
    assert found(published, tmp_path / "cache") is None
    with pytest.raises(DataError, match="not opened"):
        open_weights(published, served, tmp_path / "cache")  # given
    (places[1] / "tiny.pth").write_bytes(b"")
    with pytest.raises(DataError, match=r"0 bytes.*delete it"):
        open_weights(published, None, tmp_path / "cache")  # found


@pytest.mark.parametrize("name", ["evil.pth", "evil.pt", "evil.safetensors", "tiny.pth"])
def test_a_foreign_pickle_is_never_opened(published, places, tmp_path, name):
    canary, file = tmp_path / "canary", tmp_path / name
    file.write_bytes(pickle.dumps({"a": Canary(canary)}))
    kind = DataError if name == published.file else UnsafeFile
    with pytest.raises(kind, match=published.sha256):
        open_weights(published, file, tmp_path / "cache")
    assert not canary.exists() and UnsafeFile.exit_code == 7


def test_other_weights_come_as_safetensors(published, places, tmp_path):
    file = tmp_path / "mine.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(5)}, file)
    opened = open_weights(published, file, tmp_path / "cache")
    assert opened.sha256 == hashlib.sha256(file.read_bytes()).hexdigest() and opened.tensors["a"].shape == (5,)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match="no safetensors file"):
        open_weights(published, file, tmp_path / "cache")
    with pytest.raises(DataError, match=r"mine2\.safetensors cannot be read"):
        open_weights(published, tmp_path / "mine2.safetensors", tmp_path / "cache")
