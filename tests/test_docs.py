"""What the documents show must run: the worked example of CONTRIBUTING, the minimal examples, the README's words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from generama.__main__ import COMMANDS
from generama.core import Batch, Rng, Spec
from generama.recipes import RECIPES
from generama.settings import TrainSettings
from generama.state import start
from generama.turns import play_round

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("minimal_*.py"))


def test_the_worked_example_is_a_family_that_learns() -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert code
    module: dict = {"__name__": "mixture"}
    sys.modules["mixture"] = type(sys)("mixture")  # where dataclasses look their annotations up
    exec(compile(code[1], "CONTRIBUTING.md", "exec"), module)
    torch.manual_seed(0)
    family = module["Mixture"](module["MixtureConfig"](components=7), Spec(1, 8, 3))
    state = start(family.train(), TrainSettings())
    batch = Batch(torch.rand(13, 1, 8, 8) - 0.5)
    losses = [play_round(state, batch, TrainSettings(), rate=0.05)["loss/mixture"].item() for _ in range(30)]
    assert losses[-1] < losses[0] - 0.5
    assert family.log_prob(batch.images).shape == (13,)
    together, alone = family.sample(Rng([3, 4])), family.sample(Rng([4]))
    assert together.shape == (2, 1, 8, 8) and torch.allclose(together[1], alone[0])


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_the_minimal_examples_stand_alone_and_draw_a_picture(example: Path, tmp_path: Path) -> None:
    text = example.read_text()
    assert "import generama" not in text and "from generama" not in text
    assert len(text.splitlines()) < 100
    words = [sys.executable, str(example), str(tmp_path / "made.png"), "--steps", "12"]
    subprocess.run(words, check=True, capture_output=True, cwd=tmp_path)
    assert min(Image.open(tmp_path / "made.png").size) >= 64


def test_the_readme_names_every_recipe_and_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(f"`{name}`" in text for name in RECIPES)
    assert all(f"generama {word}" in text for word in COMMANDS)
    for path in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / path).exists(), path


def test_no_file_is_too_large_and_no_weights_are_committed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a checkout")
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        limit = 300_000 if path.suffix in {".png", ".gif"} and "embedded" not in name else 1_000_000
        limit = 2_500_000 if name.startswith("docs/reports/") else limit  # whole pages with all their pictures
        assert not path.exists() or path.stat().st_size < limit, name
