"""`make bench`: all but the time to quality; prints each figure, writes the JSON and the tables of two pages."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import tyro

from benchmarks import data_path, metrics, speed, startup
from benchmarks.page import write_page


def main(
    peers: Path,
    seconds: float = 40,
    rounds: int = 3,
    threads: int = os.cpu_count() or 1,
    pictures: int = 10_000,
    only: tuple[str, ...] = ("startup", "data", "speed", "metrics"),
) -> None:
    """Measure, on a machine that does nothing else.

    `peers` is the Python of the peers' environment, `seconds` how long each contender is watched
    in each of the `rounds`.
    """
    with tempfile.TemporaryDirectory() as made:
        if "startup" in only:
            startup.measure(10, threads).save()
        if "data" in only:
            data_path.measure(seconds, rounds, pictures, threads, Path(made)).save()
        if "speed" in only:
            speed.measure(str(peers.absolute()), seconds, rounds, threads, Path(made)).save()
        if "metrics" in only:
            metrics.measure(rounds, threads, Path(made)).save()
    write_page()


if __name__ == "__main__":
    tyro.cli(main)
