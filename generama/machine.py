"""The machine that a run uses: its device, what it is, how much memory it took, and an allocator that keeps memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import importlib.util
import math
import os
import platform
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from generama import __version__
from generama.errors import UsageError

EXTRAS = {  # extra -> the module that it brings
    "hub": "datasets",
    "ray": "ray",
    "features": "efficientnet_lite_pytorch",
    "transformers": "transformers",
}
PACKAGES = ("numpy", "pillow", "safetensors", "scikit-learn", "scipy")  # whose version can change a number
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, else the GPU when there is one, else the CPU."""
    if name is None:
        if torch.cuda.is_available():  # of several processes each takes its own
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device '{name}' is not to be had here; leave --device out to use {pick_device()}") from error
    return torch.device(name)


@functools.cache
def keep_freed_memory() -> None:
    """Ask glibc to keep freed tensors instead of giving them back to the kernel at every step.

    The page faults otherwise cost up to a third of a training step. A no-op where the C library is another.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_memory() -> None:
    """Return what is free to the system and to the GPU's driver, where others can have it."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def forget_peak() -> None:
    """Start the peak of memory afresh, so that one run is not charged with the run before it (Linux and CUDA)."""
    give_back_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM


def peak_memory(device: torch.device) -> int:
    """Largest memory so far in bytes: of the GPU where the device is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, as they stand in recipe.json and in the report."""
    return {
        "generama": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # one name may have AVX-512 or not
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def examine() -> list[tuple[str, str, bool]]:
    """What a run will find here: (what, finding, whether it is well), a row each."""
    device = pick_device()
    facts = describe(device)
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    rows = [
        ("generama", facts["generama"], True),
        ("python", facts["python"], sys.version_info >= (3, 11)),
        ("torch", facts["torch"], True),
        ("device", str(facts["accelerator"] or device), True),
        ("processor", f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads", True),
        ("disk", f"{free:.1f} GiB free here", free > 1),
        ("convolution", f"{_convolution_speed(device):.0f} GFLOP/s in float32", True),
    ]
    for extra, module in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        rows.append(
            (f"extra {extra}", "installed" if found else f"not installed: pip install 'generama[{extra}]'", True)
        )
    return rows


def _convolution_speed(device: torch.device) -> float:
    """Billions of operations a second of a 3x3 convolution, the work that most families do."""
    image, weight = torch.randn(32, 64, 32, 32, device=device), torch.randn(64, 64, 3, 3, device=device)
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        functional.conv2d(image, weight, padding=1).sum().item()
        best = min(best, time.perf_counter() - began)
    return 2 * 9 * 64 * 64 * image[:, 0].numel() / best / 1e9
