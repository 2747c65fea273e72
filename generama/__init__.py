"""Generama: train, sample, measure and compare every family of generative image models under one interface.

The words of the command line are functions here: `generama.compare(data="photos/", recipes=["vae", "ddpm"],
budget="5min", seeds=2)`, `generama.load("runs/...").sample(seeds=range(16))`. Nothing heavy is imported before use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from generama.commands import (
        compare,
        diagnose,
        doctor,
        edit,
        evaluate,
        load,
        prepare,
        recommend,
        reflow,
        resume,
        sample,
        show,
        train,
        write_report,
    )

__all__ = [
    "compare",
    "diagnose",
    "doctor",
    "edit",
    "evaluate",
    "load",
    "prepare",
    "recommend",
    "reflow",
    "resume",
    "sample",
    "show",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from generama import commands

        return getattr(commands, name)
    raise AttributeError(f"module 'generama' has no attribute '{name}'; its words: {', '.join(__all__)}")
