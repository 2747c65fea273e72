"""One contender measures two sets of features in a process of its own: seconds, memory beyond the features, values.

`python -m benchmarks.metric_run --name NAME --features FILE.safetensors` prints JSON. Ours gives the
Frechet distance, the kernel distance, precision, recall, density and coverage; torchmetrics the first two, prdc the
other four.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import tyro
from torch import Tensor, nn

K = 5
CHUNK = 1_000  # features given to torchmetrics at once


class Given(nn.Module):
    """torchmetrics' extractor of features, given features."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.num_features = dims

    def forward(self, x: Tensor) -> Tensor:
        """(B, D), as they are."""
        return x


def ours(real: Tensor, fake: Tensor) -> dict[str, float]:
    """All six, every pair of features multiplied once."""
    from generama.metrics.distances import frechet
    from generama.metrics.neighbours import prdc_of
    from generama.metrics.quality import pairs

    found = pairs(real, real, [fake], K)[0]
    assert found.near is not None
    return {"frechet": frechet(real, fake), "kid": found.kid, **vars(prdc_of(found.near, K))}


def torchmetrics(real: Tensor, fake: Tensor, **subsets: Any) -> dict[str, float]:
    """Both distances; the kernel distance of 100 random subsets of 1,000, unless other `subsets` are asked for."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    dims = real.shape[1]
    shape: Any = (dims,)  # of what it is given: features in place of pictures
    frechet = FrechetInceptionDistance(feature=Given(dims), normalize=True, input_img_size=shape)
    frechet = frechet.set_dtype(torch.float64)
    kid = KernelInceptionDistance(feature=Given(dims), normalize=True, **subsets)
    for features, is_real in ((real, True), (fake, False)):
        for some in features.split(CHUNK):
            frechet.update(some, real=is_real)
            kid.update(some, real=is_real)
    return {"frechet": frechet.compute().item(), "kid": kid.compute()[0].item()}


def prdc(real: Tensor, fake: Tensor) -> dict[str, float]:
    """The package of Naeem et al."""
    from prdc import compute_prdc

    return {name: float(value) for name, value in compute_prdc(real.numpy(), fake.numpy(), K).items()}


CONTENDERS = {"ours": ours, "torchmetrics": torchmetrics, "prdc": prdc}


def main(name: str, features: Path, threads: int = 1) -> None:
    """Measure once, after a small set that nobody counts."""
    import contextlib
    import sys

    torch.set_num_threads(threads)
    sets = safetensors.torch.load_file(features)
    run = CONTENDERS[name]
    with contextlib.redirect_stdout(sys.stderr), torch.no_grad():  # prdc prints
        run(sets["real"][:1_001].clone(), sets["fake"][:1_001].clone())
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest memory so far
        began = time.perf_counter()
        values = run(sets["real"], sets["fake"])
        seconds = time.perf_counter() - began
    told: dict[str, Any] = {"seconds": seconds, "memory": _memory("VmHWM") - before, "values": values}
    print(json.dumps(told))


def _memory(key: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    tyro.cli(main)
