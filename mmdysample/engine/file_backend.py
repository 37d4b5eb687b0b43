"""MMEngine's access to local files: checkpoints are written whole, images are read whole."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import ClassVar

from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio import io as file_io
from PIL import Image

from mmdysample.engine.errors import MissingDataError, UnreadableImageError
from mmdysample.engine.files import write_whole

#: What ends a whole file, by suffix.
_LAST_MARK = {'.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9', '.png': b'IEND'}
#: Bytes at the end in which the mark is looked for; a few programs append some of their own.
_TAIL = 64


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
