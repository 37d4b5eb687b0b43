"""Scripts in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HIDE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if any(name == hidden or name.startswith(hidden + '.') for hidden in {hidden!r}):
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def run_script(
    script: str, *path: str, without: Sequence[str] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Run Python code that looks for modules on a path first, and finds none of some packages."""
    if without:
        script = HIDE.format(hidden=tuple(without)) + script
    return subprocess.run(
        [sys.executable, '-c', script],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([*path, *sys.path])),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
