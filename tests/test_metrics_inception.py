"""FID's Inception-v3 on random weights in the published layout: the real file cannot be had where tests run."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

from generama.errors import DataError
from generama.metrics import inception
from generama.metrics.inception import PUBLISHED, built, inception_features, prepared
from generama.nets.inception import Inception, MixedA, MixedE, average, maximum

CPU = torch.device("cpu")
# Each block as its branches, each branch as its convolutions in order; a pair is two beside each other.
A = (("1x1",), ("5x5_1", "5x5_2"), ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3"), ("pool", "_pool"))
B = (("3x3",), ("3x3dbl_1", "3x3dbl_2", "3x3dbl_3"), ("pool",))
C = (("1x1",), ("7x7_1", "7x7_2", "7x7_3"), tuple(f"7x7dbl_{i}" for i in range(1, 6)), ("pool", "_pool"))
D = (("3x3_1", "3x3_2"), tuple(f"7x7x3_{i}" for i in range(1, 5)), ("pool",))
E = (("1x1",), ("3x3_1", ("3x3_2a", "3x3_2b")), ("3x3dbl_1", "3x3dbl_2", ("3x3dbl_3a", "3x3dbl_3b")), ("pool", "_pool"))
BLOCKS = {"5b": A, "5c": A, "5d": A, "6a": B, "6b": C, "6c": C, "6d": C, "6e": C, "7a": D, "7b": E, "7c": E}
HALVING = ("Conv2d_1a_3x3", "6a.branch3x3", "6a.branch3x3dbl_3", "7a.branch3x3_2", "7a.branch7x7x3_4")
UNPADDED = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")


@pytest.fixture(scope="module")
def tensors():
    """All names and shapes of the published file, with random numbers that neither die out nor explode."""
    rng, made = torch.Generator().manual_seed(3), {}

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    for name, parameter in Inception().named_parameters():
        layer, shape = name.rpartition(".")[0], parameter.shape
        if layer == "fc":
            made[name] = 0.05 * normal(*shape)
        elif name.endswith("weight"):
            made[f"{layer}.conv.weight"] = normal(*shape) * (2 / parameter[0].numel()) ** 0.5
            made[f"{layer}.bn.weight"] = 1 + 0.1 * normal(shape[0])
            made[f"{layer}.bn.bias"], made[f"{layer}.bn.running_mean"] = 0.1 * normal(shape[0]), 0.1 * normal(shape[0])
            made[f"{layer}.bn.running_var"] = 1 + 0.5 * torch.rand(shape[0], generator=rng)
            made[f"{layer}.bn.num_batches_tracked"] = torch.tensor(0)
    return made


def reference(tensors: dict, x: torch.Tensor) -> torch.Tensor:
    """The graph once more, with batch norm as such and padded averages counted by hand."""

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bn = tensors[f"{name}.conv.weight"], f"{name}.bn."
        valid = name.removeprefix("Mixed_") in (*HALVING, *UNPADDED)
        stride = 2 if name.removeprefix("Mixed_") in HALVING else 1
        x = functional.conv2d(x, weight, None, stride, 0 if valid else tuple(k // 2 for k in weight.shape[2:]))
        moments = [tensors[bn + part] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *moments, eps=1e-3).relu()

    def pool(x: torch.Tensor, block: str) -> torch.Tensor:
        if block in ("6a", "7a"):
            return functional.max_pool2d(x, 3, 2)
        if block == "7c":
            windows = functional.unfold(functional.pad(x, (1, 1, 1, 1), value=-1e9), 3)
            return windows.unflatten(1, (x.shape[1], 9)).amax(2).view_as(x)
        ones = torch.ones(x.shape[1], 1, 3, 3)
        total = functional.conv2d(x, ones, padding=1, groups=x.shape[1])
        return total / functional.conv2d(torch.ones_like(x), ones, padding=1, groups=x.shape[1])

    def branch(x: torch.Tensor, block: str, steps: tuple) -> torch.Tensor:
        for step in steps:
            if isinstance(step, tuple):
                x = torch.cat([conv(x, f"Mixed_{block}.branch{part}") for part in step], 1)
            else:
                x = pool(x, block) if step == "pool" else conv(x, f"Mixed_{block}.branch{step}")
        return x

    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "", "Conv2d_3b_1x1", "Conv2d_4a_3x3", ""):
        x = conv(x, name) if name else functional.max_pool2d(x, 3, 2)
    for block, branches in BLOCKS.items():
        x = torch.cat([branch(x, block, steps) for steps in branches], 1)
    return x.mean((2, 3))


def test_it_has_as_many_numbers_as_others_publish():
    # Keras counts 23,851,784 in its Inception-v3 of 1,000 classes: the weights, and beta, mean and variance of 17,216
    # channels behind batch norm, which are one bias each here. The eight classes more are 8 x 2,049.
    assert sum(p.numel() for p in Inception().parameters()) == 23_851_784 - 2 * 17_216 + 8 * 2_049


def test_it_computes_what_the_graph_does(tensors):
    x = torch.randn(2, 3, 127, 131, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        pool3, logits = built(tensors, "inception")(x)
        wanted = reference(tensors, x)
    assert pool3.shape == (2, 2048) and logits.shape == (2, 1008) and wanted.std() > 0.01
    assert (pool3 - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert torch.allclose(logits, wanted @ tensors["fc.weight"].T, rtol=1e-3, atol=1e-3)  # without the bias


def test_averages_leave_out_the_padding():
    assert torch.equal(average(torch.full((1, 2, 5, 7), 3.0)), torch.full((1, 2, 5, 7), 3.0))
    block = MixedA(11, 32).requires_grad_(False)
    torch.nn.init.constant_(block.branch_pool.weight, 1 / 11)
    torch.nn.init.zeros_(block.branch_pool.bias)
    pooled = block(torch.full((1, 11, 5, 7), 4.0))[:, -32:]
    assert torch.allclose(pooled, torch.full((1, 32, 5, 7), 4.0))  # with the padding a corner would be 4 * 4 / 9


def test_the_last_block_takes_the_largest():
    spike = torch.zeros(1, 13, 5, 5)
    spike[:, :, 2, 2] = 9.0
    for pool, value in ((average, 1.0), (maximum, 9.0)):
        block = MixedE(13, pool).requires_grad_(False)
        torch.nn.init.constant_(block.branch_pool.weight, 1 / 13)
        torch.nn.init.zeros_(block.branch_pool.bias)
        pooled = block(spike)[0, -1]
        assert torch.allclose(pooled[1:4, 1:4], torch.full((3, 3), value)) and pooled.sum() == pytest.approx(9 * value)
    assert Inception().Mixed_7b.pool is average and Inception().Mixed_7c.pool is maximum


def test_pictures_are_scaled_as_the_graph_does_it():
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8)
    shown = prepared(levels[:, None, None, None].expand(3, 3, 5, 5))
    assert shown.shape == (3, 3, 299, 299)
    assert torch.equal(shown[:, 0, 7, 11], torch.tensor([-1.0, 0.0, 127 / 128]))


def test_the_published_file_is_inception_and_others_are_not(tensors, tmp_path, monkeypatch):
    file = tmp_path / "weights" / PUBLISHED.file
    file.parent.mkdir()
    torch.save(tensors, file)
    content = file.read_bytes()
    here = replace(PUBLISHED, size=len(content), sha256=hashlib.sha256(content).hexdigest(), url="http://127.0.0.1:9")
    monkeypatch.setattr(inception, "PUBLISHED", here)
    monkeypatch.setenv("GENERAMA_WEIGHTS", str(file.parent))
    ours = inception_features(None, tmp_path, CPU)
    assert ours.name == "inception" and "published" in ours.note and "299x299" in ours.note
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(7)) * 2 - 1
    seen = ours(images)
    assert seen.values.shape == (2, 2048) and seen.probs is None
    assert seen.scores is not None and torch.allclose(seen.scores.sum(1), torch.ones(2), atol=1e-5)
    with torch.no_grad():
        byte = torch.from_numpy(np.rint((images.numpy() + 1) * 127.5).astype(np.uint8))
        wanted = reference(tensors, prepared(byte.expand(-1, 3, -1, -1)))
    assert (seen.values - wanted).abs().max() < 1e-4 * wanted.abs().max()
    safetensors.torch.save_file(tensors, tmp_path / "same.safetensors")
    other = inception_features(tmp_path / "same.safetensors", tmp_path, CPU)
    digest = hashlib.sha256((tmp_path / "same.safetensors").read_bytes()).hexdigest()
    assert other.name == f"inception-{digest[:8]}" and "not FID's" in other.note and other.key != ours.key
    assert torch.allclose(other(images[1:]).values, seen.values[1:], atol=1e-4 * wanted.abs().max().item())


def test_weights_of_another_layout_are_refused(tensors):
    lacking = {name: tensor for name, tensor in tensors.items() if not name.startswith("Mixed_6c.branch_pool.bn")}
    with pytest.raises(DataError, match=r"layout.*Mixed_6c\.branch_pool\.bn"):
        built(lacking, "inception")
    with pytest.raises(DataError, match="size mismatch"):
        built(tensors | {"fc.weight": torch.zeros(1000, 2048)}, "inception")
    with pytest.raises(DataError, match="NaN"):
        built(tensors | {"fc.bias": torch.full((1008,), torch.nan)}, "inception")


def test_offline_it_says_what_to_get(tmp_path, monkeypatch):
    monkeypatch.delenv("GENERAMA_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(inception, "PUBLISHED", replace(PUBLISHED, url="http://127.0.0.1:9/file.pth"))
    with pytest.raises(
        DataError, match=r"pt_inception-2015-12-05-6726825d\.pth \(95,628,359 bytes, SHA-256 6726825d0af5"
    ):
        inception_features(None, tmp_path, CPU)
