"""Local files that are written whole or not at all, and images that are read whole."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio import io as file_io
from PIL import Image

from mmdysample.engine.errors import MissingDataError, UnreadableImageError, UnwritableFileError

#: What ends a whole file, by suffix.
_LAST_MARK = {'.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9', '.png': b'IEND'}
#: Bytes at the end in which the mark is looked for; a few programs append some of their own.
_TAIL = 64
_LEFTOVER = re.compile(r'(.+\.pth|last_checkpoint)\.\d+\.part')


class WholeFileBackend(LocalBackend):
    """MMEngine's access to local files, without half-written and half-read ones.

    Attributes:
        outdated (list[str], optional): Where it is a list, files and folders that are removed are
            only noted there: :class:`LateRemovalHook` removes them later.
    """

    outdated: ClassVar[list[str] | None] = None

    def get(self, filepath: str | Path) -> bytes:
        """Read a file.

        Args:
            filepath (str or Path): The file.

        Returns:
            bytes: Its content.

        Raises:
            MissingDataError: If there is no such file.
            UnreadableImageError: If its name says JPEG or PNG, and it is no image or was cut short.
        """
        try:
            content = super().get(filepath)
        except FileNotFoundError as error:
            raise MissingDataError(f'{filepath} does not exist') from error
        mark = _LAST_MARK.get(os.path.splitext(filepath)[1].lower())
        if mark and mark not in content[-_TAIL:]:
            _check_image(content, filepath)
        return content

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file as :func:`write_whole` does."""
        write_whole(filepath, obj)
        if self.outdated is not None:
            self.outdated[:] = [path for path in self.outdated if path != str(filepath)]

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, now or later."""
        if self.outdated is None:
            super().remove(filepath)
        else:
            self.outdated.append(str(filepath))

    def rmtree(self, dir_path: str | Path) -> None:
        """Remove a folder, now or later."""
        if self.outdated is None:
            super().rmtree(dir_path)
        else:
            self.outdated.append(str(dir_path))


def use_whole_files() -> None:
    """Let this process and its forks reach local files by :class:`WholeFileBackend`."""
    register_backend('local', WholeFileBackend, force=True, prefixes='')
    # Backends in use are kept there, by prefix and arguments.
    file_io.backend_instances.clear()


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


def write_json(path: str | Path, record: Any) -> None:
    """Write a JSON file as :func:`write_whole` does.

    Raises:
        ValueError: If a number is not finite.
        UnwritableFileError: If it can't be written.
    """
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
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


def _check_image(content: bytes, path: str | Path) -> None:
    """Decode an image that does not end as its kind does: it may be whole, of another kind."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (OSError, SyntaxError) as error:  # Pillow's for a broken PNG is a syntax error
        # Its message shows the buffer where there is no image at all.
        reason = 'no image' if 'identify' in str(error) else str(error)
        raise UnreadableImageError(
            f'{path} cannot be read ({len(content)} bytes): {reason}'
        ) from error
