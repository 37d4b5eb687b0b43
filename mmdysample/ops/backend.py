"""Which implementation an operator runs: PyTorch's operators, Triton kernels, native CPU code."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

BACKENDS = ('auto', 'torch', 'native', 'triton')
VARIABLE = 'MMDYSAMPLE_BACKEND'

HAS_NUMBA = importlib.util.find_spec('numba') is not None
HAS_TRITON = importlib.util.find_spec('triton') is not None
# Triton decides at import whether it interprets kernels on the CPU, so this is read once too.
INTERPRETED = os.environ.get('TRITON_INTERPRET', '0') == '1'

_TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_NATIVE_DTYPES = (torch.float32, torch.float64)
_MIN_CAPABILITY = (7, 0)
_reported: set[str] = set()


def check_backend(backend: str) -> str:
    """Return ``backend``, or for ``'auto'`` what the environment says in its place.

    Args:
        backend (str): ``'auto'``, ``'torch'``, ``'native'`` or ``'triton'``; ``'auto'`` leaves the
            word to the environment variable ``MMDYSAMPLE_BACKEND``, if that is set.

    Raises:
        ValueError: If either names another backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f'backend must be one of {BACKENDS}, got {backend!r}')
    if backend != 'auto':
        return backend
    preset = os.environ.get(VARIABLE, 'auto')
    if preset not in BACKENDS:
        raise ValueError(f'{VARIABLE} must be one of {BACKENDS}, got {preset!r}')
    return preset


def can_run_triton(*tensors: Tensor | None, raise_error: bool = False) -> bool:
    """Whether the Triton kernels take these tensors; the one predicate behind every choice.

    Args:
        *tensors (Tensor, optional): What the operator reads; None for an absent one.
        raise_error (bool): Raise the reason instead of returning False. Defaults to False.

    Raises:
        RuntimeError: With ``raise_error``, if they do not.
    """
    return _answer('triton', _triton_obstacle(tensors), raise_error)


def can_run_native(*tensors: Tensor | None, raise_error: bool = False) -> bool:
    """Whether the native CPU kernels take these tensors; the one predicate behind every choice.

    Args:
        *tensors (Tensor, optional): What the operator reads; None for an absent one.
        raise_error (bool): Raise the reason instead of returning False. Defaults to False.

    Raises:
        RuntimeError: With ``raise_error``, if they do not.
    """
    return _answer('native', _native_obstacle(tensors), raise_error)


def choose_backend(
    backend: str,
    *tensors: Tensor | None,
    trial: Callable[[str, torch.device, torch.dtype], Sequence[Tensor]] | None = None,
) -> str:
    """Choose ``'torch'``, ``'native'`` or ``'triton'`` for one call.

    The automatic choice takes the native kernels on the CPU, where Numba is installed, and the
    Triton kernels on a GPU; the interpreter is there for tests that ask for it. Triton compiles
    for GPUs that nobody has tried, so before it is taken by itself for the first time on a device
    and for a dtype, the trial must give what PyTorch's operators give. Where a GPU has to do
    without the kernels, the log says so once. Where only PyTorch's own operators will do, see
    :func:`only_plain_operators`, they take the place of native code even if that was asked for.

    Args:
        backend (str): See :func:`check_backend`.
        *tensors (Tensor, optional): What the operator reads.
        trial (Callable, optional): ``trial(backend, device, dtype)`` runs the operator on a tiny
            input and returns its result and gradients. Defaults to None: no trial.

    Raises:
        RuntimeError: If ``'native'`` or ``'triton'`` was asked for and cannot run.
        ValueError: If ``backend`` is unknown.
    """
    backend = check_backend(backend)
    if (backend == 'native' and only_plain_operators()) or _is_transforming():
        return 'torch'
    if backend == 'triton':
        can_run_triton(*tensors, raise_error=True)
    if backend == 'native':
        can_run_native(*tensors, raise_error=True)
    if backend != 'auto':
        return backend
    device, dtype = tensors[0].device, tensors[0].dtype
    if device.type == 'cpu':
        return 'native' if can_run_native(*tensors) else 'torch'
    obstacle = _triton_obstacle(tensors)
    if obstacle is None and trial is not None:
        obstacle = _trial_obstacle(trial, device, dtype)
    if obstacle is None:
        return 'triton'
    _report_once(f'upsampling without Triton kernels, on PyTorch operators: {obstacle}')
    return 'torch'


def on_device(device: torch.device) -> AbstractContextManager:
    """Context of a kernel launch: Triton takes the current GPU, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def only_plain_operators() -> bool:
    """Whether nothing but PyTorch's own operators will do.

    That is so while a graph is traced or exported, for use without this package, and inside the
    transforms of ``torch.func``. ``torch.compile`` is none of these cases: it calls the kernels
    as operators of their own.
    """
    return torch.jit.is_tracing() or torch.compiler.is_exporting() or _is_transforming()


def runs_eagerly(*tensors: Tensor | None) -> bool:
    """Whether nothing follows a call: no graph is made of it, and no mode or tensor intercepts it.

    Then a kernel need not be called as an operator of PyTorch. That takes as long as the sampling
    of a small map, and the first such call imports ``torch._dynamo`` for more than a second.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    return all(t is None or type(t) in (Tensor, torch.nn.Parameter) for t in tensors)


def _is_transforming() -> bool:
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _answer(backend: str, obstacle: str | None, raise_error: bool) -> bool:
    if obstacle and raise_error:
        raise RuntimeError(f'backend {backend!r} cannot run here: {obstacle}')
    return not obstacle


def _triton_obstacle(tensors: Sequence[Tensor | None]) -> str | None:
    """What keeps the Triton kernels from these tensors, in words; None if nothing does."""
    if not HAS_TRITON:
        return 'the package triton is not installed'
    if torch.jit.is_tracing():
        return 'torch.jit.trace records operators of PyTorch only'
    for tensor in tensors:
        if tensor is None:
            continue
        device = tensor.device
        if device.type == 'cpu' and not INTERPRETED:
            return 'tensors are on the CPU and TRITON_INTERPRET=1 was not set before the import'
        if device.type not in ('cpu', 'cuda'):
            return f'device {device.type!r} is not supported'
        if device.type == 'cuda' and torch.version.hip is None:
            capability = torch.cuda.get_device_capability(device)
            if capability < _MIN_CAPABILITY:
                return f'compute capability {capability} is below {_MIN_CAPABILITY}'
        if tensor.dtype not in _TRITON_DTYPES:
            return f'dtype {tensor.dtype} is not supported'
    return None


def _native_obstacle(tensors: Sequence[Tensor | None]) -> str | None:
    """What keeps the native kernels from these tensors, in words; None if nothing does."""
    if not HAS_NUMBA:
        return 'the package numba is not installed'
    if only_plain_operators():
        return 'tracing, exporting and torch.func take operators of PyTorch only'
    for tensor in tensors:
        if tensor is None:
            continue
        if tensor.device.type != 'cpu':
            return f'device {tensor.device.type!r} is not supported'
        if tensor.dtype not in _NATIVE_DTYPES:
            return f'dtype {tensor.dtype} is not supported'
    return _numba_obstacle()


def _constant_in_graphs(function: Callable) -> Callable:
    """``torch.compiler.assume_constant_result``, without its import of a second at load time."""
    function._dynamo_marked_constant = True  # all that it does
    return function


@_constant_in_graphs
def _numba_obstacle() -> str | None:
    """Why Numba cannot be imported, tried once; None if it can."""
    return _import_numba()


@_constant_in_graphs
def _trial_obstacle(trial: Callable, device: torch.device, dtype: torch.dtype) -> str | None:
    """What is wrong with Triton's result of a trial, in words; None if nothing is."""
    return _try_triton(trial, device, dtype)


@_constant_in_graphs
def _report_once(message: str) -> None:
    if message not in _reported:
        _reported.add(message)
        logger.warning('%s', message)


# torch.compile follows calls, and takes the results of the three above for constants. It would
# look through a cache around them, so what is cached stands apart.


@cache
def _import_numba() -> str | None:
    try:
        importlib.import_module('mmdysample.ops.native')
    except Exception as error:  # Numba raises more than ImportError beside a NumPy it dislikes
        obstacle = f'numba cannot be imported: {error}'
        _report_once(f'upsampling without native kernels, on PyTorch operators: {obstacle}')
        return obstacle
    return None


@cache
def _try_triton(trial: Callable, device: torch.device, dtype: torch.dtype) -> str | None:
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            expected = trial('torch', device, dtype)
            actual = trial('triton', device, dtype)
        tolerance = 8 * torch.finfo(dtype).eps
        for ours, theirs in zip(actual, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    except Exception as error:  # whatever a compiler or a driver may raise
        reason = str(error).strip().splitlines() or ['']
        return f'their trial on {device} in {dtype} failed: {type(error).__name__}: {reason[0]}'
    return None
