"""What the native CPU kernels share: Numba's options, the cache of compiled code, threads.

This module imports Numba, so it is imported where a kernel is first called, never at the import of
the package; so is every module that holds kernels. How to write one:

- Decorate it with :func:`kernel`. Its first two arguments are ``start`` and ``stop``: it does the
  blocks ``start`` to ``stop - 1`` of the work and nothing else. What a block is, is up to the
  kernel; no two blocks may write one place, so the result is the same for any number of threads.
- Call it by ``run(kernel, blocks, *arguments)``. That splits the blocks over as many threads as
  ``torch.get_num_threads()`` says, and none is started for one.
- Arguments are NumPy arrays (``tensor.numpy()`` of a detached tensor shares its memory) and
  numbers. Flat arrays and indices of type ``np.uint64`` spare the loop the strides and the test
  for negative indices: ``np.uint64`` plus a signed integer would be a float, so mix neither.
  Pointers (:func:`mmdysample.ops.pointers.pointer`) need neither, and no count of references.
- A helper that kernels call is decorated with :func:`part`.
- A result is made by :func:`empty`: the first touch of a large one can take longer than the kernel.

Numba's threads are not safe here: its workqueue layer aborts when two Python threads call at once,
and its OpenMP layer ends a child that is forked after its first use. Blocks are done by the OpenMP
threads of PyTorch's operators: those wait for the next operator in a loop that keeps their cores
busy for milliseconds, and threads of our own would have to share the cores with them. These there
are only in a forked child and where PyTorch has no OpenMP.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import prod
from pathlib import Path

import numba
import numpy as np
import torch
from torch import Tensor

PARTS_PER_THREAD = 4
"""Pieces that a thread's share is cut into, so that a delayed thread does not hold up the rest."""

HUGE_PAGE = 2**21
"""Bytes of a huge page on most systems; where it is another, its gain is lost and no more."""

ALONE = 2**19
"""Interpolated values that are worth a thread: they take about as long as one takes to begin."""

LARGE = 2**23
"""Bytes of a result from which huge pages pay: a smaller one holds few, and the C library keeps its
memory for the next."""

# Contraction allows fused multiply-add, reassociation vectorised sums. NaN and infinity keep their
# meaning, which Numba's fastmath=True would take away.
_OPTIONS = dict(
    nogil=True, error_model='numpy', boundscheck=False, fastmath={'contract', 'reassoc', 'nsz'}
)

_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_forked = False  # OpenMP would wait for ever for threads that a fork has not copied


def kernel(function: Callable) -> Callable:
    """Compile a function at its first call, and keep the machine code on disk for later processes.

    The folder is below ``NUMBA_CACHE_DIR`` or the user's cache folder, or of this user alone below
    the system's temporary one where those cannot be written; if that fails too, every process
    compiles for itself. Its name tells the sources of all kernels: Numba alone would go on using
    machine code whose helpers have changed in another file.

    Args:
        function (Callable): What Numba's ``njit`` takes.

    Returns:
        Callable: The compiled function.
    """
    before = numba.config.CACHE_DIR
    for folder in (_user_folder, _private_folder):
        path = folder()
        if path is None or not _can_write(path / _sources()):
            continue
        numba.config.CACHE_DIR = str(path / _sources())  # read while the decorator runs
        try:
            return numba.njit(cache=True, **_OPTIONS)(function)
        except RuntimeError:  # Numba finds no folder that it can write
            continue
        finally:
            numba.config.CACHE_DIR = before
    return numba.njit(**_OPTIONS)(function)


def part(function: Callable) -> Callable:
    """Compile what kernels call, into each of its callers: vectors then stay in registers.

    Args:
        function (Callable): What Numba's ``njit`` takes.

    Returns:
        Callable: The compiled function.
    """
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def threads_for(values: int) -> int:
    """Say how many threads so many interpolated values are worth, of those that PyTorch has."""
    return max(1, min(torch.get_num_threads(), values // ALONE))


def run(function: Callable, blocks: int, *arguments, threads: int | None = None) -> None:
    """Call ``function(start, stop, *arguments)`` until all blocks are done.

    Args:
        function (Callable): A :func:`kernel`.
        blocks (int): How many there are.
        *arguments: What else the kernel takes.
        threads (int, optional): How many work. Defaults to those that PyTorch has.
    """
    threads = min(torch.get_num_threads() if threads is None else threads, blocks)
    if threads <= 1:
        if blocks:
            function(0, blocks, *arguments)
        return
    parts = min(blocks, threads * PARTS_PER_THREAD)
    bounds = [blocks * part // parts for part in range(parts + 1)]
    counter = itertools.count()

    def work() -> None:
        while (part := next(counter)) < parts:
            function(bounds[part], bounds[part + 1], *arguments)

    enter_team = None if _forked else _openmp()
    if enter_team is None:
        _work_in_pool(work, threads)
    else:
        _work_in_team(enter_team, work, threads)


def empty(shape: Sequence[int], dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """Make a tensor of any values, from NumPy where it is large, as that asks for huge pages.

    The first touch of small pages can take longer than a kernel. A large tensor begins with a huge
    page, and the memory behind it reaches to the end of its last one: none of it is in small pages.

    Args:
        shape (Sequence[int]): Images, channels, height and width.
        dtype (torch.dtype): Of floating point, with an equal in NumPy.
        layout (torch.memory_format): ``torch.contiguous_format`` or ``torch.channels_last``.

    Returns:
        Tensor: Dense, on the CPU.
    """
    count = prod(shape)
    if count * dtype.itemsize < LARGE:
        return torch.empty(shape, dtype=dtype, memory_format=layout)
    page = HUGE_PAGE // dtype.itemsize
    memory = np.empty(count + 2 * page, torch.empty(0, dtype=dtype).numpy().dtype)
    first = -memory.ctypes.data % HUGE_PAGE // dtype.itemsize
    memory = memory[first : first + count]
    # Shaped by NumPy, for a view of PyTorch's may not be written to behind a custom function.
    if layout is torch.channels_last:
        images, channels, height, width = shape
        memory = memory.reshape(images, height, width, channels).transpose(0, 3, 1, 2)
    return torch.from_numpy(memory.reshape(shape))


def _work_in_team(enter_team: Callable, work: Callable[[], None], threads: int) -> None:
    """Call ``work`` in each thread of PyTorch's team."""
    errors = []

    @_WORK
    def guarded(_) -> None:
        try:
            work()
        except BaseException as error:  # ctypes would print it and go on
            errors.append(error)

    enter_team(guarded, None, threads, 0)
    if errors:
        raise errors[0]


def _work_in_pool(work: Callable[[], None], threads: int) -> None:
    """Call ``work`` in this thread and in some of our own."""
    others = [_executor(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for other in others:
            other.cancel()  # one that has not begun has nothing left to do
    for other in others:
        if not other.cancelled():
            other.result()


@cache
def _openmp() -> Callable | None:
    """``GOMP_parallel(work, data, threads, flags)``: what compilers call for a parallel region.

    GNU's runtime has it, and those of Intel and LLVM for compatibility; None where no runtime of
    this process does.
    """
    try:
        enter_team = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    enter_team.argtypes = (_WORK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    enter_team.restype = None
    return enter_team


def _executor(workers: int) -> ThreadPoolExecutor:
    """The threads of this process, at least so many; idle ones cost nothing but their stack."""
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < workers:
            # The smaller one may be in use; its threads end when nobody refers to it any more.
            _pool = ThreadPoolExecutor(workers, thread_name_prefix='mmdysample')
            _pool_size = workers
        return _pool


def _forget_threads() -> None:
    """In a forked child: teams and pool have no threads there, and the lock may be held."""
    global _lock, _pool, _pool_size, _forked
    _lock, _pool, _pool_size, _forked = threading.Lock(), None, 0, True


os.register_at_fork(after_in_child=_forget_threads)


@cache
def _sources() -> str:
    """A digest of everything that the package's kernels are made of."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.rglob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _user_folder() -> Path:
    parent = numba.config.CACHE_DIR or os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(os.path.expanduser(parent)) / 'mmdysample'


def _private_folder() -> Path | None:
    """A folder that this user alone can write: cached code is executed. None if there is none."""
    folder = Path(tempfile.gettempdir()) / f'mmdysample-numba-{os.getuid()}'
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return folder if private and found.st_uid == os.getuid() else None
