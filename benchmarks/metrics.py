"""Our metrics beside those of torchmetrics, prdc, scikit-learn and scipy: the same numbers, and how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from benchmarks.metric_run import K, ours, prdc, torchmetrics
from benchmarks.rows import ROOT, Sheet, machine, versions
from benchmarks.watching import environment

SMALL, LARGE, DIMS = 2_003, 10_000, 1_280
CLOSE = "< 1e-06"
NAMES = ("frechet", "kid", "precision", "recall", "density", "coverage")


def measure(rounds: int, threads: int, made: Path) -> Sheet:
    """Parity on features in float64, then the speed on large sets, each contender in a process of its own."""
    sheet = Sheet("metrics", f"make bench ARGS='--only metrics --rounds {rounds}'", machine(threads))
    torch.set_num_threads(threads)
    parity(sheet)
    path = made / "features.safetensors"
    real, fake = features(LARGE)
    safetensors.torch.save_file({"real": real, "fake": fake}, path)
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", "torchmetrics", "prdc")}
    for _ in range(rounds):
        for name, runs in told.items():
            runs.append(contend(name, path, threads))
    speed(sheet, told)
    return sheet


def features(n: int, dims: int = DIMS) -> tuple[Tensor, Tensor]:
    """Two sets (n, D) float32 as networks give: correlated, of unequal variance, cut at 0; the second is wider."""
    stream = torch.Generator().manual_seed(0)
    mixed = torch.randn(dims, dims, generator=stream) / dims**0.5 * torch.logspace(0, -1, dims)
    real, fake = ((torch.randn(n, dims, generator=stream) @ mixed) for _ in range(2))
    return real.relu(), (1.02 * fake + 0.005).relu()


def parity(sheet: Sheet) -> None:
    """Add every number of ours and of a peer, and their relative difference."""
    from generama.metrics.classes import inception_score
    from generama.metrics.sliced import mind

    real, fake = (side.double() for side in features(SMALL))
    found = ours(real, fake) | {"mind": mind(real[:, :64], fake[:, :64], 101)}
    probs = (40 * fake[:, :10]).softmax(1)
    found["inception_score"] = inception_score(probs)
    peers: dict[str, Callable[[], dict[str, float]]] = {
        "torchmetrics": lambda: torchmetrics(real, fake, subsets=1, subset_size=SMALL) | score(probs),
        "prdc": lambda: prdc(real, fake),
        "scikit-learn": lambda: with_scikit_learn(real.numpy(), fake.numpy()),
        "scipy": lambda: with_scipy(real.numpy(), fake.numpy()),
    }
    for name, run in peers.items():
        for key, value in run().items():
            error = abs(found[key] - value) / (abs(value) or 1)
            note = json.dumps({"ours": found[key], "peer": value})
            sheet.add(f"relative error of {key}", name, [error], "", versions(), target=CLOSE, note=note)


def score(probs: Tensor) -> dict[str, float]:
    """torchmetrics' Inception score of logits (n, K), all in one part."""
    from torchmetrics.image.inception import InceptionScore

    from benchmarks.metric_run import Given

    metric = InceptionScore(feature=Given(probs.shape[1]), splits=1)
    metric.update(probs.log())
    return {"inception_score": metric.compute()[0].item()}


def with_scikit_learn(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """The kernel distance by `polynomial_kernel`; the balls by `NearestNeighbors`."""
    from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel
    from sklearn.neighbors import NearestNeighbors

    n = len(real)
    kernel = [polynomial_kernel(x, y) for x, y in ((real, real), (fake, fake), (real, fake))]  # degree 3, +1, 1/D
    within = [(table.sum() - np.trace(table)) / (n * (n - 1)) for table in kernel[:2]]
    reach = [NearestNeighbors(n_neighbors=K).fit(x).kneighbors()[0][:, -1] for x in (real, fake)]
    gap = euclidean_distances(real, fake)
    inside = gap < reach[0][:, None]
    return {
        "kid": float(sum(within) - 2 * kernel[2].mean()),
        "precision": float(inside.any(0).mean()),
        "recall": float((gap < reach[1]).any(1).mean()),
        "density": float(inside.sum(0).mean() / K),
        "coverage": float(inside.any(1).mean()),
    }


def with_scipy(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """The Frechet distance by `sqrtm`; MIND of 64 features by sorted quantiles of numpy, in 101 directions."""
    import scipy.linalg

    from generama.metrics.sliced import directions

    covs = [np.cov(x, rowvar=False) for x in (real, fake)]
    root = scipy.linalg.sqrtm(covs[0] @ covs[1])
    frechet = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(covs[0] + covs[1] - 2 * np.real(root))
    lines = directions(64, 101).numpy()
    x, y = (np.sort(side[:, :64] @ lines.T, axis=0) for side in (real, fake))
    return {"frechet": float(frechet), "mind": float(3 * 64 * ((x - y) ** 2).mean())}


def contend(name: str, path: Path, threads: int) -> dict[str, Any]:
    """What benchmarks/metric_run.py said of one contender."""
    words = [sys.executable, "-m", "benchmarks.metric_run", "--name", name, "--features", str(path)]
    words += ["--threads", str(threads)]
    done = subprocess.run(words, cwd=ROOT, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def speed(sheet: Sheet, told: dict[str, list[dict[str, Any]]]) -> None:
    """Add seconds and memory of each, the ratio aimed at, and the largest difference of the values."""
    for name, runs in told.items():
        sheet.add("seconds", name, [run["seconds"] for run in runs], "s", versions())
        target = "<= 1024" if name == "ours" else ""
        memory = [run["memory"] / 2**20 for run in runs]
        sheet.add("memory beyond the features", name, memory, "MiB", versions(), target=target)
    ratio = [
        one["seconds"] / (two["seconds"] + three["seconds"])
        for one, two, three in zip(told["ours"], told["torchmetrics"], told["prdc"], strict=True)
    ]
    sheet.add("seconds, ratio", "ours / (torchmetrics + prdc)", ratio, "", versions(), target="<= 0.2")
    values, theirs = told["ours"][0]["values"], told["torchmetrics"][0]["values"] | told["prdc"][0]["values"]
    for key in ("frechet", "precision", "recall", "density", "coverage"):  # their kernel distance is of random subsets
        error = abs(values[key] - theirs[key]) / (abs(theirs[key]) or 1)
        note = json.dumps({"ours": values[key], "peer": theirs[key]})
        sheet.add(
            f"relative error of {key}, float32", "the same sets", [error], "", versions(), target=CLOSE, note=note
        )
