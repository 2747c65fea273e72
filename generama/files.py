"""Files that are written whole or not at all: whoever reads sees the old content or the new, never a part."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file at once; NaN and infinity, which JSON does not know, are refused with a ValueError."""
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
