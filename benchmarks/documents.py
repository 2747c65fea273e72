"""Tables in documents: Markdown from rows, put between two markers so that a program can write them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from generama.files import write_whole


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def fill(document: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- NAME --> and <!-- end of NAME --> in a document."""
    before, opening, rest = document.read_text().partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- end of {name} -->")
    if not opening or not closing:
        raise ValueError(f"{document} has no markers <!-- {name} --> and <!-- end of {name} -->")
    write_whole(document, f"{before}{opening}\n{text.strip()}\n\n{closing}{after}".encode())
