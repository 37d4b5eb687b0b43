"""Where a measured number comes from: command, device, versions and revision."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = {
    'torch': ('torch',),
    'triton': ('triton',),
    'fvcore': ('fvcore',),
    'mmcv': ('mmcv', 'onedl-mmcv'),
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
}
"""Packages to name, by what they import as, and the distributions that provide them."""


def provenance() -> dict[str, Any]:
    """Describe this run, for the head of a result file.

    Returns:
        dict: ``command`` (from the checkout), ``python``, ``platform``, ``versions`` of the
        installed packages, and ``revision`` of the checkout (None outside of one; with
        ``-dirty`` where tracked files are changed).
    """
    script = Path(sys.argv[0])
    root = Path(__file__).resolve().parents[2]
    if script.resolve().is_relative_to(root):
        script = script.resolve().relative_to(root)
    return dict(
        command=shlex.join(['python', str(script), *sys.argv[1:]]),
        python=platform.python_version(),
        platform=platform.platform(),
        versions=_versions(),
        revision=_revision(root),
    )


def save(result: dict[str, Any], tables: str, path: Path) -> None:
    """Write a result as JSON to ``path``, and its tables as Markdown beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + '\n')
    path.with_suffix('.md').write_text(tables + '\n')


def _versions() -> dict[str, str]:
    versions = {}
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                versions[name] = f'{distribution} {metadata.version(distribution)}'
            except metadata.PackageNotFoundError:
                continue
    return versions


def _revision(root: Path) -> str | None:
    command = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=40']
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
