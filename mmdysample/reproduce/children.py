"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


class Stopped(Exception):
    """The run was asked to stop; what is there goes on with the next call."""


class Children:
    """The processes of a run. All can be ended at once, from any thread."""

    def __init__(self) -> None:
        self.ended = False
        self._running: list[subprocess.Popen] = []
        self._lock = threading.Lock()

    def start(
        self, command: Sequence[str], environment: dict[str, str], keep: Sequence[int] = ()
    ) -> subprocess.Popen:
        """Start a process, its output piped as text; it inherits the file descriptors ``keep``.

        Raises:
            Stopped: If the children were ended.
        """
        with self._lock:
            if self.ended:
                raise Stopped(command[0])
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
                pass_fds=keep,
                preexec_fn=die_with_parent,
            )
            self._running.append(process)
        return process

    def end(self) -> None:
        """Ask all that run to end, and let no other start."""
        with self._lock:
            self.ended = True
            for process in self._running:
                process.terminate()


def die_with_parent() -> None:
    """Leave no training behind that nobody watches, should the parent be killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
