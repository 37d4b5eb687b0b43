"""Beginning, end and GPUs of processes: of a distributed job's, and of those that a run starts."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

from mmdysample.engine.errors import UsageError

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


def join_processes_on_cpu(cfg: Config) -> None:
    """Form the group of a ``--launcher pytorch`` job on a machine without accelerator.

    MMEngine would select a GPU of CUDA, which isn't there, and name it to the model's wrapper.
    Where there is one, or one process only, nothing is done.

    Args:
        cfg (Config): A full config; its ``model_wrapper_cfg`` is set unless it has one.
    """
    if cfg.get('launcher') != 'pytorch' or get_device() != 'cpu':
        return
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def run_script(main: Callable[[], int]) -> None:
    """Run a script's main function and end this process with its exit status.

    A process of a distributed job is not torn down in order: a group of gloo can deadlock then (its
    destructor joins a thread while it holds the GIL, which that thread wants), and the launcher
    would wait for it for ever. What ``main`` registers with :mod:`atexit`, such as the last upload
    of a logger, runs all the same.

    Args:
        main (Callable): Returns the exit status; takes no arguments.
    """
    status = 1

    def leave_group() -> None:
        if dist.is_initialized():
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    atexit.register(leave_group)  # what is registered later runs earlier
    try:
        status = main()
    except Exception:
        if not dist.is_initialized():
            raise
        traceback.print_exc()
    if status == 0 and dist.is_initialized():
        dist.barrier()  # the others may still talk to this process
    sys.exit(status)


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
    """Let the kernel end this process when the one that started it ends, even by SIGKILL."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let a polite kill, as batch systems send it, end the run in an orderly way."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, by the names of ``CUDA_VISIBLE_DEVICES``."""
    every = ','.join(map(str, range(torch.cuda.device_count())))
    return [name for name in os.environ.get('CUDA_VISIBLE_DEVICES', every).split(',') if name]


def devices_for(count: int, gpus_each: int) -> list[str]:
    """Share out this machine's GPUs: ``CUDA_VISIBLE_DEVICES`` of each of the jobs at a time.

    Raises:
        UsageError: If there are not so many GPUs.
    """
    names = visible_gpus()
    if count * gpus_each > len(names):
        raise UsageError(
            f'{count} job(s) of {gpus_each} GPU(s) need {count * gpus_each}, but this machine '
            f'shows {len(names)}; lower --gpus or --jobs'
        )
    return [','.join(names[i * gpus_each : (i + 1) * gpus_each]) for i in range(count)]
