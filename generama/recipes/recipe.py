"""A recipe is a named experiment: which family, how it is trained, how it is sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from generama.families import FamilyConfig
from generama.settings import TrainSettings


@dataclass(frozen=True)
class Recipe:
    """What to train and how. What depends on the data (channels, size, classes) is bound when a run starts."""

    family: FamilyConfig
    train: TrainSettings = field(default_factory=TrainSettings)
    sample: dict[str, Any] = field(default_factory=dict)  # options of the family's own `sample`
    teacher: str = ""  # the folder of a run whose averaged weights training starts from; empty: fresh ones
