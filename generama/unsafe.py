"""Files that can run code when they are loaded: recognised by name and by their first bytes, and never opened."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from generama.errors import DataError, UnsafeFile

ENDINGS = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib")


def refuse_pickles(path: Path) -> None:
    """Raise UnsafeFile where the path is a file that is, or by its name may be, pickled."""
    if path.is_file() and (path.suffix.lower() in ENDINGS or is_pickled(path)):
        raise UnsafeFile(
            f"{path} may be a pickle, which can run code when it is loaded, so it is refused; where you trust it, "
            "convert it: torch.load(..., weights_only=True), then safetensors.torch.save_file(...) for weights or "
            "numpy.savez(...) for pictures"
        )


def is_pickled(path: Path) -> bool:
    """Whether the content says so: a pickle of protocol 2 or later, or PyTorch's zip around one."""
    with path.open("rb") as file:
        head = file.read(4)
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2]:  # safetensors: a length, 0 in its 3rd byte
        return True
    if head != b"PK\3\4":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.rpartition("/")[2] for name in archive.namelist()}
            return {"data.pkl", "version"} <= inside
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, or that of an .npy as 'array'.

    Raises UnsafeFile for arrays of objects, which are pickled, and DataError where the file is damaged.
    """
    refuse_pickles(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"array": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # zlib.error, BadZipFile, EOFError, OSError, ValueError: all mean the same, but one
        if "allow_pickle" in str(error):
            raise UnsafeFile(
                f"{path} holds an array of objects, which is pickled and can run code when it is loaded; save it as "
                "numbers or fixed-width text"
            ) from error
        raise DataError(f"{path} is damaged ({error}); make it again") from error
