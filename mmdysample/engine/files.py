"""Local files that are written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mmdysample.engine.errors import UnwritableFileError

_LEFTOVER = re.compile(r'(.+\.pth|last_checkpoint)\.\d+\.part')


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file so that at any moment its name leads to the old content or to the new one.

    The content goes to a neighbouring file, down to the disk, which then takes the name. A
    process that is killed meanwhile leaves that neighbour behind: see :func:`remove_leftovers`.

    Args:
        path (str or Path): The file; its folder is made if need be.
        content (bytes): What to write.

    Raises:
        UnwritableFileError: If it can't be written. What had the name before still has it.
    """
    target = os.path.realpath(path)  # a link stays a link
    part = f'{target}.{os.getpid()}.part'
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with _open_locked(part) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, target)
    except OSError as error:
        raise UnwritableFileError(
            f'{path} was not written: {error.strerror}; it needs {_mebibytes(len(content))}, and '
            f'{free_space(target)} are free there. Files that were written before are kept.'
        ) from error
    finally:
        with suppress(OSError):
            os.unlink(part)


def write_json(path: str | Path, record: Any, finite: bool = True) -> None:
    """Write a JSON file as :func:`write_whole` does.

    Raises:
        ValueError: If a number is not finite, unless ``finite`` is False.
        UnwritableFileError: If it can't be written.
    """
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=not finite)
    write_whole(path, f'{text}\n'.encode())


def remove_leftovers(folder: str | Path) -> None:
    """Remove what :func:`write_whole` left of checkpoints when its process was killed.

    What a living process writes is left alone.

    Args:
        folder (str or Path): Where checkpoints are; it need not exist.
    """
    for path in Path(folder).glob('*.part'):
        if _LEFTOVER.fullmatch(path.name):
            with suppress(OSError), open(path, 'rb') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error if its writer lives
                path.unlink(missing_ok=True)


def check_writable(folder: str | Path) -> None:
    """Raise UnwritableFileError unless a folder, made if need be, takes a block of data."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UnwritableFileError(
            f'nothing can be written to the folder {folder}: {error.strerror}'
        ) from error


def free_space(path: str | Path) -> str:
    """Say how much space is free on the file system of a path, which need not exist."""
    folder = Path(path).resolve()
    while not folder.is_dir():
        folder = folder.parent
    return _mebibytes(shutil.disk_usage(folder).free)


def _open_locked(path: str) -> BinaryIO:
    """Open a file to write, with a lock that ends with this process."""
    while True:
        file = open(path, 'wb')  # noqa: SIM115  the caller closes it
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was cleared away before it was locked


def _mebibytes(count: int) -> str:
    return f'{count / 2**20:.1f} MiB'
