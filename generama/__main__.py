"""The command line: parsing only. Every word is a function of `generama.commands`; recipes bring their own flags."""

from __future__ import annotations

import dataclasses
import inspect
import json as jsons
import os
import shutil
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import AvoidSubcommands, Positional

from generama import __version__, commands, files, signals
from generama.errors import GeneramaError, ResourceError, UsageError
from generama.settings import CompareSettings, EditSettings, EvaluateSettings, How, Need

Settings = Annotated[CompareSettings, tyro.conf.arg(name="")]
Editing = Annotated[EditSettings, tyro.conf.arg(name="")]
Measuring = Annotated[EvaluateSettings, tyro.conf.arg(name="")]


def recipes() -> None:
    """List the recipes: what each is, by the first sentence of its docstring."""
    from generama.recipes import RECIPES

    print_rows([(name, (inspect.getdoc(make) or "").splitlines()[0]) for name, make in RECIPES.items()])


def prepare(
    source: Positional[str],
    size: int | None = None,
    grey: bool | None = None,
    out: Path | None = None,
    on_bad: Literal["error", "skip"] = "error",
    bad_limit: float = 0.01,
) -> None:
    """Turn pictures into a data set: a name, a folder, a zip, an .npz, IDX files or hub:NAME.

    With --on-bad skip, unreadable files are left out and counted, up to the share --bad-limit of them.
    """
    data = commands.prepare(source, size, grey, out, on_bad, bad_limit)
    print_rows([(key, str(value)) for key, value in data.describe().items()])


def train(
    recipe: Positional[str],
    data: str = "mnist5k",
    run: str | None = None,
    size: int | None = None,
    grey: bool | None = None,
    device: str | None = None,
) -> None:
    """Train a recipe. `generama train RECIPE --help` shows all its settings, such as --train.minutes 5."""
    raise UsageError(f"'{recipe}' must come right after 'generama train'")


def train_with(name: str, flags: Sequence[str]) -> None:
    """Parse the flags of `generama train NAME` against the recipe of that name, and train."""
    from generama.recipes import recipe

    chosen = recipe(name)
    fields = [(p.name, p.annotation, p.default) for p in parameters(train)[1:]]
    fields += [(f, type(getattr(chosen, f)), getattr(chosen, f)) for f in ("family", "train")]
    given = parse(f"generama train {name}", (inspect.getdoc(train) or ""), fields, flags)
    changed = dataclasses.replace(chosen, family=given.pop("family"), train=given.pop("train"))
    trained = commands.train(changed, name=name, **given)
    print(trained.run.folder)


def resume(run: Positional[str], device: str | None = None) -> None:
    """Go on with a run from its last checkpoint; a finished one is left as it is."""
    print(commands.resume(run, device).run.folder)


def reflow(
    teacher: Positional[str],
    run: str | None = None,
    n: int = 20_000,
    distil: bool = False,
    couplings: str | None = None,
    device: str | None = None,
) -> None:
    """Train a rectified flow again on the images it makes, straighter; with --distil, to draw in one step.

    With --couplings it learns from the images of another run, such as a student from those of its teacher's teacher.
    `generama reflow RUN --help` shows the settings of its training, such as --train.minutes 5.
    """
    raise UsageError(f"'{teacher}' must come right after 'generama reflow'")


def reflow_with(teacher: str, flags: Sequence[str]) -> None:
    """Parse the flags of `generama reflow RUN` against the training settings of that run, and train again."""
    from generama.run import Run

    settings = Run.open(commands.run_folder(teacher)).record.recipe.train
    fields = [(p.name, p.annotation, p.default) for p in parameters(reflow)[1:]]
    fields += [("train", type(settings), settings)]
    given = parse(f"generama reflow {teacher}", (inspect.getdoc(reflow) or ""), fields, flags)
    chosen = vars(given.pop("train"))
    print(commands.reflow(teacher, **given, **chosen).run.folder)


def sample(
    run: Positional[str],
    n: int = 64,
    first_seed: int = 0,
    label: int | None = None,
    name: str = "drawn",
    batch: int = 64,
    singles: bool = False,
    device: str | None = None,
    average: float | None = None,
    earlier: float | None = None,
) -> None:
    """Draw images from a run. `generama sample RUN --help` shows its family's own options, such as --steps."""
    raise UsageError(f"'{run}' must come right after 'generama sample'")


def sample_with(run: str, flags: Sequence[str]) -> None:
    """Parse the flags of `generama sample RUN` against the options of its family, and sample."""
    from generama.core import sample_options

    trained = commands.load(run)
    settled = trained.run.record.recipe.sample
    fields = [(p.name, p.annotation, p.default) for p in parameters(sample)[1:]]
    own = sample_options(trained.generator).values()
    fields += [(option.name, option.annotation, settled.get(option.name, option.default)) for option in own]
    given = parse(f"generama sample {run}", (inspect.getdoc(sample) or ""), fields, flags)
    first, n = given.pop("first_seed"), given.pop("n")
    how = {name: given.pop(name) for name in ("device", "average", "earlier")}
    trained = trained if set(how.values()) == {None} else commands.load(run, **how)
    print(commands.sample(trained, range(first, first + n), **given))


def edit(run: Positional[str], settings: Editing, device: str | None = None, average: float | None = None) -> None:
    """Edit pictures with a run: img2img, inpaint, reconstruct, interpolate or variations.

    `generama edit RUN --how HOW --help` shows the family's own options too, such as --steps.
    """
    raise UsageError(f"'{run}' must come right after 'generama edit'")


def edit_with(run: str, flags: Sequence[str]) -> None:
    """Parse the flags of `generama edit RUN` against the options of its family, as its kind of edit has them."""
    from generama.core import sample_options
    from generama.editing.edits import settled_options

    made = dataclasses.make_dataclass("How", [("how", How, dataclasses.field(default="img2img"))])
    how = tyro.cli(made, prog=f"generama edit {run}", args=list(flags), return_unknown_args=True, add_help=False)[0].how
    trained = commands.load(run)
    settled = settled_options(trained, how)
    fields = [
        ("settings", Editing, EditSettings(how=how)),
        *((p.name, p.annotation, p.default) for p in parameters(edit)[2:]),
    ]
    own = sample_options(trained.generator).values()
    fields += [(option.name, option.annotation, settled.get(option.name, option.default)) for option in own]
    given = parse(f"generama edit {run}", (inspect.getdoc(edit) or ""), fields, flags)
    asked, device, average = (given.pop(name) for name in ("settings", "device", "average"))
    trained = trained if device is None and average is None else commands.load(run, device, average)
    print(commands.edit(trained, **vars(asked), **given))


def show(run: Positional[str], device: str | None = None) -> None:
    """Show at which noise levels a run errs, on held-out pictures: a table here, a plot in the run's process folder."""
    folder, found = commands.show(run, device)
    rows = zip(found.times, found.image_error, found.loss, strict=True)
    print_rows([("noise level t", "error of the guessed picture, loss")])
    print_rows([(f"{t:.2f}", f"{error:.4f}  {loss:.4f}") for t, error, loss in rows])
    print(folder / "noise-levels.png")


def evaluate(settings: Measuring, json: bool = False) -> None:
    """Measure runs, or the pictures of any program against real ones, in one table and on one page.

    With --json one JSON object is printed, and nothing else.
    """
    found = commands.evaluate(**vars(settings))
    if json:
        print(jsons.dumps(found.as_json(), allow_nan=False))
        return
    from generama.printing import print_judgement

    print_judgement(found)
    if found.report:
        print(found.report)


def diagnose(run: Positional[str]) -> None:
    """Say what is wrong with a run, or may be: what shows it, and what to try.

    Works on unfinished and failed runs too, as far as they go.
    """
    found = commands.diagnose(run)
    for finding in found.findings:
        print(f"{finding.severity.upper()}: {finding.title}")
        for what, words in (("seen", finding.evidence), ("try", finding.advice)):
            print(textwrap.fill(words, 110, initial_indent=f"  {what + ':':<6}", subsequent_indent=" " * 8))
        print()
    counted = Counter(finding.severity for finding in found.findings)
    total = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counted.items()) or "nothing found"
    print(textwrap.fill(f"{total}; {len(found.looked_at)} things looked at: {', '.join(found.looked_at)}", 110))
    for reason in dict.fromkeys(found.not_seen.values()):
        what = ", ".join(name for name, why in found.not_seen.items() if why == reason)
        print(textwrap.fill(f"could not look at {what}: {reason}", 110, subsequent_indent="  "))


def compare(settings: Settings) -> None:
    """Train, sample and measure recipes under one budget; writes one HTML page.

    What is already trained under the same budget is reused.
    """
    print(commands.compare(**vars(settings)))


def report(folder: Positional[Path], out: Path | None = None) -> None:
    """Write the page of a comparison, or of any folder of runs, again; nothing is trained."""
    print(commands.write_report(folder, out))


def recommend(data: str | None = None, need: Need = "quality", comparison: Path | None = None) -> None:
    """Say which model to use for a need, by what the newest comparison of the data measured.

    The answer comes with its reasons, its runner-up, and what would change it; nothing is trained.
    """
    found = commands.recommend(data, need, comparison)
    print(f"For {need}: {found.answer or 'no model can be recommended'}")
    print_paragraphs([("Rule", found.rule), *((heading, " ".join(said)) for heading, said in found.sections)])
    if found.run:
        print_paragraphs([("Try it", f"generama sample {found.run}")])


def doctor() -> None:
    """Say what this machine has: versions, device, speed, disk, extras."""
    rows = commands.doctor()
    print_rows([(what, finding if well else f"{finding}  <- look here") for what, finding, well in rows])


COMMANDS: dict[str, Callable[..., None]] = {
    "recipes": recipes,
    "prepare": prepare,
    "train": train,
    "resume": resume,
    "reflow": reflow,
    "sample": sample,
    "edit": edit,
    "show": show,
    "evaluate": evaluate,
    "diagnose": diagnose,
    "compare": compare,
    "report": report,
    "recommend": recommend,
    "doctor": doctor,
}
WITH_OWN_FLAGS = {"train": train_with, "reflow": reflow_with, "sample": sample_with, "edit": edit_with}


def parse(prog: str, about: str, fields: list[tuple[str, Any, Any]], flags: Sequence[str]) -> dict[str, Any]:
    """Read flags into a dictionary by a dataclass made of (name, type, default)."""
    made = dataclasses.make_dataclass("Flags", [(n, t, dataclasses.field(default=d)) for n, t, d in fields])
    given = tyro.cli(made, prog=prog, description=about, args=list(flags), config=(AvoidSubcommands,))
    return {name: getattr(given, name) for name, _, _ in fields}


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function with their types evaluated."""
    return list(inspect.signature(function, eval_str=True).parameters.values())


def print_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{max(width, 20)}}  {value}")


def print_paragraphs(rows: Sequence[tuple[str, str]]) -> None:
    """Print headings and texts in two columns, the texts in as many lines as the terminal makes of them."""
    width = max(shutil.get_terminal_size((100, 24)).columns, 60)
    for name, text in rows:
        lines = textwrap.wrap(text, width - 22, break_long_words=False, break_on_hyphens=False)
        print("\n".join([f"{name:<20}  {lines[0]}", *(" " * 22 + line for line in lines[1:])]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every failure ends in one sentence and its own exit code."""
    if int(os.environ.get("RANK", "0")) > 0:  # of several processes the first speaks
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # to the end of the process
    try:
        with signals.terminated_cleanly():
            run_command(list(sys.argv[1:] if argv is None else argv))
    except GeneramaError as error:
        return fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno not in files.REASONS:
            raise
        return fail(f"{error.filename or 'the disk'}: {files.REASONS[error.errno]}", ResourceError.exit_code)
    except signals.Terminated as stop:
        from generama import slurm

        slurm.requeue(stop.signal)
        return fail(f"stopped by {stop.signal.name}; nothing is left half-written: the same command does it again", 75)
    except (RuntimeError, MemoryError) as error:
        from generama.health import out_of_memory

        if not out_of_memory(error):
            raise
        return fail("out of memory; what is saved is whole; try a smaller --batch", ResourceError.exit_code)
    except KeyboardInterrupt:
        return fail("stopped at once; what was saved before is whole, and nothing is left half-written", 130)
    return 0


def run_command(args: list[str]) -> None:
    """Do what the words of the command line say."""
    if args == ["--version"]:
        print(__version__)
    elif len(args) > 1 and args[0] in WITH_OWN_FLAGS and not args[1].startswith("-"):
        WITH_OWN_FLAGS[args[0]](args[1], args[2:])
    else:
        about = "Train, sample, measure and compare every family of generative image models."
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="generama", description=about, args=args)


def fail(sentence: str, code: int) -> int:
    """Say why nothing more is done; returns the exit code."""
    print(f"generama: {sentence}", file=sys.stderr)
    return code


def process() -> int:
    """`main` as a process of its own: a Ctrl-C that comes while Python clears up has nothing left to stop."""
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(process())
