"""Which source a name or a path stands for."""

from __future__ import annotations

from pathlib import Path

from generama.data.archive import find_archive
from generama.data.contents import Source
from generama.data.folder import find_folder
from generama.data.hub import find_hub
from generama.data.idx import find_idx, holds_idx
from generama.data.named import NAMED
from generama.data.npz import find_npz
from generama.data.tree import is_picture
from generama.errors import DataError, unknown
from generama.unsafe import refuse_pickles

HUB = "hub:"


def find_source(source: str | Path) -> Source:
    """The source for a name such as 'mnist5k', for 'hub:NAME' or for a path. Raises DataError where there is none.

    A name wins over a folder of the same name; write './digits' for the folder.
    """
    if isinstance(source, str) and source in NAMED:
        return NAMED[source]()
    if isinstance(source, str) and source.startswith(HUB):
        return find_hub(source.removeprefix(HUB))
    path = Path(source).expanduser()
    refuse_pickles(path)
    if path.is_dir():
        return find_idx(path, path.resolve().name) if holds_idx(path) else find_folder(path)
    if path.is_file() and path.suffix.lower() == ".npz":
        return find_npz(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return find_archive(path)
    if path.is_file():
        what = "one picture; pass the folder that holds all" if is_picture(path.name) else "neither .npz nor .zip"
        raise DataError(f"{path} is {what}")
    raise DataError(
        f"{unknown('data', source, NAMED)}; or a path to a folder or zip of pictures, an .npz or a folder of IDX "
        "files, or hub:NAME"
    )
