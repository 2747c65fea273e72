"""What a run folder has to show: each part is read when it is first asked for, and a missing one is a reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from generama.core import Batch, Finding
from generama.data import Data, open_data
from generama.diagnosis.pictures import Contents, contents
from generama.errors import GeneramaError, Unseen
from generama.evaluation import read_samples
from generama.metrics.choice import choose
from generama.run import Trained, load

MOST = 1_000  # samples, and as many held-out pictures, that are looked at
EXAMINED = 256  # held-out pictures that a family examines itself on


class Evidence:
    """All that a diagnosis can look at. Raises Unseen, with the reason, where a part is missing or damaged."""

    def __init__(self, folder: Path, data: Data | None = None) -> None:
        self.folder = folder
        self._data = data

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """recipe.json; of pictures from another program it says no more than their name, shape and data."""
        return self._object("recipe.json", "what was trained, and on what, is not known")

    @cached_property
    def status(self) -> dict[str, Any]:
        """status.json; empty where training has not saved anything yet."""
        try:
            return self._object("status.json", "")
        except Unseen:
            return {}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return self._object("metrics.json", f"measure it first: generama evaluate {self.folder}")

    @cached_property
    def log(self) -> list[dict[str, float]]:
        """The lines of log.jsonl, the oldest first."""
        if not self.log_so_far:
            raise Unseen("there is no training log")
        return self.log_so_far

    @cached_property
    def log_so_far(self) -> list[dict[str, float]]:
        """The same; empty where there is none."""
        lines = self._lines("log.jsonl")
        return [{key: float(x) for key, x in line.items() if isinstance(x, int | float)} for line in lines]

    @cached_property
    def events(self) -> list[str]:
        """What befell the run, from events.jsonl; empty where nothing did."""
        return [str(line.get("what", "")) for line in self._lines("events.jsonl")]

    @cached_property
    def unfair(self) -> list[Finding]:
        """What judging noted in fairness.json; empty for a run, whose samples and data go the same way."""
        path = self.folder / "fairness.json"
        try:
            return [Finding(**entry) for entry in json.loads(path.read_text())] if path.exists() else []
        except (ValueError, TypeError) as error:
            raise Unseen(f"fairness.json is damaged ({error})") from error

    @cached_property
    def samples(self) -> tuple[Tensor, Tensor | None]:
        """The samples that are measured, (N, C, H, W) bytes or points, and the labels they were asked for."""
        path = self.folder / "samples" / "main" / "samples.npz"
        if not path.exists():
            raise Unseen(f"there are no samples yet: generama evaluate {self.folder}")
        try:
            images, labels = read_samples(path)
        except GeneramaError as error:
            raise Unseen(str(error)) from error
        return images[:MOST], None if labels is None else labels[:MOST].long()

    @cached_property
    def data(self) -> Data:
        """The data it learned from."""
        about = self.recipe.get("data", {})
        if self._data is None:
            try:
                shape = {} if about.get("size") == 1 else {"size": about.get("size"), "grey": about.get("grey")}
                self._data = open_data(about["source"], **shape)
            except (GeneramaError, KeyError, OSError) as error:
                raise Unseen(f"its data cannot be opened ({error})") from error
        if about.get("hash") not in (None, self._data.meta.hash):
            raise Unseen(f"its data, {self._data.meta.name}, holds other pictures today")
        return self._data

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor | None]:
        """Held-out pictures, as many as there are samples (or fewer), and their labels."""
        rows = choose(len(self.data.held_out), min(MOST, len(self.samples[0])))
        return self.data.held_out.pixels(rows), self.data.held_out.labels(rows)

    @cached_property
    def trained(self) -> Trained:
        """The generator with its averaged weights."""
        if self.recipe.get("kind") == "judged":
            raise Unseen("these pictures come from another program, so there is no model to look into")
        try:
            return load(self.folder)
        except GeneramaError as error:
            raise Unseen(f"its weights cannot be loaded ({error})") from error

    @cached_property
    def batch(self) -> Batch:
        """Some held-out pictures, where the generator is."""
        rows = choose(len(self.data.held_out), EXAMINED)
        return self.data.held_out.batch(rows).to(self.trained.device)

    @cached_property
    def contents(self) -> tuple[Contents, Contents]:
        """What the training and the held-out split hold, picture by picture."""
        return contents(self.data.train), contents(self.data.held_out)

    @property
    def rate(self) -> float | None:
        """The learning rate it was trained with."""
        return self.recipe.get("recipe", {}).get("train", {}).get("rate")

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes."""
        return self.recipe.get("data", {}).get("class_names", [])

    def _object(self, name: str, otherwise: str) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            raise Unseen(f"there is no {name}" + (f"; {otherwise}" if otherwise else "")) from None
        except (OSError, ValueError, RecursionError) as error:
            raise Unseen(f"{name} is damaged ({error})") from error
        if not isinstance(content, dict):
            raise Unseen(f"{name} is damaged (it holds no JSON object)")
        return content

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """The whole JSON objects among the lines of a file: a crash may have cut the last one short."""
        path, lines = self.folder / name, []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in lines if isinstance(line, dict)]
