"""Where a measured number comes from: command, device, versions and revision.

setup.py reads the revision from here, so importing this file imports neither PyTorch nor MMEngine.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

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

_VARIABLES = ('GLIBC_TUNABLES', 'MMDYSAMPLE_BACKEND')


def provenance() -> dict[str, Any]:
    """Describe this run, for the head of a result file.

    Returns:
        dict: ``command`` (from the checkout, behind the variables of the environment that change
        what is measured), ``time`` (see :func:`now`), ``python``, ``platform``, ``versions`` of
        the installed packages, and ``revision`` of this package (see :func:`revision`).
    """
    script = Path(sys.argv[0])
    variables = [f'{name}={os.environ[name]}' for name in _VARIABLES if os.environ.get(name)]
    root = Path(__file__).resolve().parents[2]
    if script.resolve().is_relative_to(root):
        script = script.resolve().relative_to(root)
    return dict(
        command=shlex.join([*variables, 'python', str(script), *sys.argv[1:]]),
        time=now(),
        python=platform.python_version(),
        platform=platform.platform(),
        versions=_versions(),
        revision=revision(root),
    )


def origin(result: Mapping[str, Any]) -> str:
    """Say in a line where the numbers of a result file come from."""
    versions = ', '.join(result['versions'].values())
    return f'`{result["command"]}` on {result["device"]}, {versions}, revision {result["revision"]}'


def now() -> str:
    """Tell the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec='seconds')


def save(result: dict[str, Any], tables: str, path: Path) -> None:
    """Write a result as JSON to ``path``, and its tables as Markdown beside it."""
    from mmdysample.engine.files import write_json, write_whole

    write_json(path, result, finite=False)  # an error may be infinite
    write_whole(path.with_suffix('.md'), f'{tables}\n'.encode())


def _versions() -> dict[str, str]:
    versions = {}
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                versions[name] = f'{distribution} {metadata.version(distribution)}'
            except metadata.PackageNotFoundError:
                continue
    return versions


def revision(root: Path) -> str | None:
    """Tell the revision of a checkout of this package.

    Args:
        root (Path): The folder that holds the package. It may lie in somebody else's repository.

    Returns:
        str: The commit, with ``-dirty`` where tracked files are changed; for an installed wheel,
        what its build noted. None where neither is known.
    """
    package = 'mmdysample/__init__.py'
    if _git(root, 'ls-files', '--full-name', package) == package:
        return _git(root, 'describe', '--always', '--dirty', '--abbrev=40')
    noted = root / 'mmdysample' / '.mim' / 'revision'
    return noted.read_text().strip() if noted.is_file() else None


def note_training(work_dir: str) -> None:
    """Note at the start of a training on what it runs, in ``provenance.json`` of its work dir.

    The file is a list. An entry also holds MMEngine's description of the environment: compilers,
    CUDA and how PyTorch was built. A training that is resumed adds an entry only where its
    revision, device, versions or platform differ from those of the last entry, and then logs a
    warning.
    """
    from mmengine.dist import is_main_process
    from mmengine.logging import print_log
    from mmengine.utils.dl_utils import collect_env

    from mmdysample.engine.files import write_json

    if not is_main_process():
        return
    path = Path(work_dir, 'provenance.json')
    entries = json.loads(path.read_text()) if path.is_file() else []
    environment = {k: v for k, v in collect_env().items() if k != 'numpy_random_seed'}
    entry = dict(device=device_name(), **provenance(), environment=environment)
    ignored = ('time', 'command', 'environment')
    last = entries[-1] if entries else {}
    changed = [key for key in entry if key not in ignored and entry[key] != last.get(key)]
    if not changed:
        return
    if entries:
        news = ', '.join(f'{key} from {last.get(key)} to {entry[key]}' for key in changed)
        print_log(f'This training goes on, but its {news} changed', 'current', logging.WARNING)
    write_json(path, [*entries, entry])


def device_name(device: torch.device | None = None) -> str:
    """Name the model of a GPU, or number and model of the CPU's cores.

    Args:
        device (torch.device, optional): Defaults to None, the GPU where there is one.
    """
    import torch

    if device.type == 'cuda' if device else torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    lines = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return f'{len(models)} x {models[0]}' if models else 'CPU'


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ['git', '-C', str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
