"""Faults in the middle of a run, in one sentence each instead of a traceback."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.runner import Runner

from mmdysample.engine.errors import (
    DeadWorkerError,
    MissingDataError,
    UnreadableImageError,
    UnwritableFileError,
    UsageError,
)
from mmdysample.engine.files import free_space

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DEAD_WORKER = re.compile(r'DataLoader worker \(pid.*')
_UNDECODED = re.compile(r'failed to load image: (.*)')  # says mmcv


@contextmanager
def faults_explained(runner: Runner, training: bool = False) -> Iterator[None]:
    """Say which file or process a run failed at, and how far it had come.

    Args:
        runner (Runner): The runner that runs inside the context.
        training (bool): Add the iterations done and how to go on. Defaults to False.

    Raises:
        MissingDataError: If a file that a dataset lists isn't there.
        UnreadableImageError: If an image is damaged.
        DeadWorkerError: If a process that loads data ended without an exception.
        UnwritableFileError: If a disk is full.
    """
    try:
        yield
    except (MissingDataError, UnreadableImageError) as error:
        raise type(error)(_own_words(error) + _done(runner, training)) from error
    except UnwritableFileError as error:
        raise UnwritableFileError(f'{error}{_go_on(training)}') from error
    except UsageError:
        raise
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise UnwritableFileError(
            f'a file below {runner.work_dir} was not written: {error.strerror}; '
            f'{free_space(runner.work_dir)} are free there.{_go_on(training)}'
        ) from error
    except (RuntimeError, AssertionError) as error:
        dead, undecoded = (kind.findall(str(error)) for kind in (_DEAD_WORKER, _UNDECODED))
        if dead:
            raise DeadWorkerError(
                f'{dead[0].strip(" .")}{_done(runner, training)}. Mostly that means that memory '
                'ran out: see dmesg, and try fewer workers (num_workers of the dataloader) '
                'or more shared memory (--shm-size of a container).'
            ) from error
        if undecoded:  # a traceback of a worker shows the line of code first
            raise UnreadableImageError(
                f'{undecoded[-1]} cannot be decoded{_done(runner, training)}'
            ) from error
        raise


def _own_words(error: UsageError) -> str:
    """Take away the traceback that a DataLoader puts around a message."""
    return str(error).rpartition(f'{type(error).__name__}: ')[2].strip()


def _done(runner: Runner, training: bool) -> str:
    return f' (training iterations done: {runner.iter})' if training else ''


def _go_on(training: bool) -> str:
    return ' Make room, and go on with --resume.' if training else ''
