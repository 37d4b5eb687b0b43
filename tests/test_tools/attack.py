"""A checkpoint's content that would run code."""

from __future__ import annotations

import os
from pathlib import Path


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
