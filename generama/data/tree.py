"""What the names of a tree of pictures say: the class of each, the source's own split, and the captions.

    CLASS/a.png              labels, where there are two classes or more
    train/... and test/...   the source's own split (also val, valid, validation)
    metadata.jsonl           captions: {"file_name": "CLASS/a.png", "text": "..."} a line, names relative to the file

Folders that all pictures share are ignored, and so is everything hidden.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from generama.data.contents import Contents, Picture
from generama.data.pictures import EXTENSIONS
from generama.errors import DataError

TRAIN = {"train", "training"}
TEST = {"test", "testing", "val", "valid", "validation"}
METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in an archive."""

    root: str  # the folder or archive, as errors call it
    names: Sequence[str]  # 'CLASS/a.png', in order; folders end in '/'
    read: Callable[[str], bytes]  # raises DataError naming the file
    lines: Callable[[str], Iterable[bytes]]  # of a text file


def is_hidden(name: str) -> bool:
    """Whether a file or one of its folders starts with a dot or is the rubbish that macOS puts into archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_picture(name: str) -> bool:
    """Whether the name ends like a picture's."""
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def read_tree(tree: Tree) -> Contents:
    """The pictures of a tree with their labels, captions and split. Raises DataError where there are none."""
    names = [name for name in tree.names if is_picture(name)]
    if not names:
        others = [name for name in tree.names if not name.endswith("/")]
        raise DataError(
            f"{tree.root} holds no pictures: looked for {', '.join(EXTENSIONS)} and found "
            f"{len(others)} other file(s){' such as ' + shown(others[0]) if others else ''}"
        )
    above = posixpath.commonpath([posixpath.dirname(name) for name in names])
    inner = [name[len(above) + 1 :] if above else name for name in names]
    held_out = None
    tops = {name.split("/", 1)[0] if "/" in name else "" for name in inner}
    if tops & TRAIN and tops & TEST and tops <= TRAIN | TEST:
        held_out = np.array([name.split("/", 1)[0] in TEST for name in inner])
        inner = [name.split("/", 1)[1] for name in inner]
    labels, class_names = _labels(tree.root, names, inner)
    notes = _empty_classes(tree.names, above) if class_names and held_out is None else ()
    return Contents(
        count=len(names),
        pictures=(_picture(tree, name) for name in names),
        labels=labels,
        class_names=class_names,
        captions=_captions(tree, names),
        file_names=names,
        held_out=held_out,
        notes=notes,
    )


def shown(name: str) -> str:
    """The name as it is, or quoted where it holds line breaks or other characters that do not print."""
    return name if name.isprintable() else repr(name)


def _picture(tree: Tree, name: str) -> Picture:
    return Picture(shown(f"{tree.root}/{name}"), lambda: tree.read(name))


def _labels(root: str, names: Sequence[str], inner: Sequence[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    folders = [name.split("/", 1)[0] if "/" in name else "" for name in inner]
    class_names = sorted(set(folders))
    if len(class_names) < 2:
        return None, ()
    if "" in class_names:
        stray = names[folders.index("")]
        raise DataError(
            f"{shown(f'{root}/{stray}')} lies beside the class folder '{shown(class_names[1])}', in no class; "
            "put every picture into a class folder, or none"
        )
    number = {name: i for i, name in enumerate(class_names)}
    return np.array([number[folder] for folder in folders], np.int64), tuple(class_names)


def _empty_classes(names: Sequence[str], above: str) -> tuple[str, ...]:
    """A note on the class folders that hold no picture."""
    depth = len(above.split("/")) if above else 0
    full = {name.split("/")[depth] for name in names if is_picture(name)}
    folders = {name.split("/")[depth] for name in names if name.endswith("/") and name.count("/") == depth + 1}
    empty = sorted(folders - full)
    return (f"class folder(s) without pictures left out: {', '.join(map(shown, empty))}",) if empty else ()


def _captions(tree: Tree, names: Sequence[str]) -> list[str] | None:
    """The caption of every picture; None where there is no metadata.jsonl."""
    files = [name for name in tree.names if posixpath.basename(name) == METADATA]
    if not files:
        return None
    row = {name: i for i, name in enumerate(names)}
    captions: list[str | None] = [None] * len(names)
    for file in files:
        for number, line in enumerate(tree.lines(file), start=1):
            where = f"{tree.root}/{file}:{number}"
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            name, text = _caption(line, where)
            target = posixpath.normpath(posixpath.join(posixpath.dirname(file), name))
            if target not in row:
                raise DataError(f"{where}: there is no picture {shown(name)}; correct file_name or drop the line")
            if captions[row[target]] is not None:
                raise DataError(f"{where}: {shown(name)} has a caption already; drop one of the two")
            captions[row[target]] = text
    complete = [text for text in captions if text is not None]
    if len(complete) < len(names):
        missing = names[captions.index(None)]
        raise DataError(
            f"{len(names) - len(complete)} picture(s) have no line in {METADATA}, the first: "
            f"{shown(f'{tree.root}/{missing}')}; add the lines or remove the file"
        )
    return complete


def _caption(line: bytes, where: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not a line of JSON ({error})") from error
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("file_name", "text")):
        raise DataError(f'{where} needs "file_name" and "text", both text')
    return entry["file_name"], entry["text"]
