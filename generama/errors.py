"""Every way to fail, each with one readable sentence, a next step and its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GeneramaError(Exception):
    """A failure that a user can act on; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(GeneramaError):
    """What was asked for does not exist or cannot be combined."""

    exit_code = 2


class Busy(UsageError):
    """Another process is at work on the same run."""


class NotDefined(UsageError):
    """The question makes no sense for this family; the message is the honest answer."""


class Unseen(GeneramaError):
    """Something could not be looked at; the message is the reason."""


class DataError(GeneramaError):
    """The pictures, labels or captions are missing, broken or unsuitable."""

    exit_code = 3


class CheckpointError(GeneramaError):
    """A saved state is missing, damaged or belongs to something else."""

    exit_code = 4


class ResourceError(GeneramaError):
    """The machine ran out of memory or disk."""

    exit_code = 5


class Diverged(GeneramaError):
    """Training reached a loss that is not a number."""

    exit_code = 6


class UnsafeFile(GeneramaError):
    """Loading the file could execute code, so it is refused."""

    exit_code = 7


class Interrupted(GeneramaError):
    """Stopped by a signal; the state is saved, and running again continues (EX_TEMPFAIL)."""

    exit_code = 75


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The sentence for a name nobody knows: "unknown sampler 'hein'; known: euler, heun; did you mean 'heun'?"."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"unknown {kind} '{name}'; known: {', '.join(names) or 'none'}{hint}"
