"""SLURM: a job that is told to go (SIGUSR1, from sbatch --signal=USR1@90) is put back into the queue."""

from __future__ import annotations

import os
import signal
import subprocess

from generama.progress import tell

SECONDS = 60  # for scontrol to answer


def requeue(stopped_by: signal.Signals | None) -> None:
    """Requeue the SLURM job that SIGUSR1 stopped; call it once, after the state is saved.

    Does nothing outside SLURM, for other signals (scancel sends SIGTERM, and means it), and on all but the first of
    several processes. A refusal is told as a warning: the state is saved, and the job can be submitted by hand.
    """
    job = job_id()
    if stopped_by is None or stopped_by.name != "SIGUSR1" or job is None or os.environ.get("RANK", "0") != "0":
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=SECONDS)
        trouble = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        trouble = str(error)
    if trouble:
        tell(f"warning: SLURM job {job} could not be requeued ({trouble}); submit it again, everything is saved")
    else:
        tell(f"SLURM job {job} is in the queue again")


def job_id() -> str | None:
    """The job's name for scontrol, JOB or ARRAY_TASK; None outside SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
