"""Which implementation an operator runs: PyTorch's own operators, or a Triton kernel."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

BACKENDS = ('auto', 'torch', 'triton')
VARIABLE = 'MMDYSAMPLE_BACKEND'

HAS_TRITON = importlib.util.find_spec('triton') is not None
# Triton decides at import whether it interprets kernels on the CPU, so this is read once too.
INTERPRETED = os.environ.get('TRITON_INTERPRET', '0') == '1'

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MIN_CAPABILITY = (7, 0)
_reported: set[str] = set()


def check_backend(backend: str) -> str:
    """Return ``backend``, or for ``'auto'`` what the environment says in its place.

    Args:
        backend (str): ``'auto'``, ``'torch'`` or ``'triton'``; ``'auto'`` leaves the word to the
            environment variable ``MMDYSAMPLE_BACKEND``, if that is set.

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
    obstacle = _obstacle(tensors)
    if obstacle and raise_error:
        raise RuntimeError(f"backend 'triton' cannot run here: {obstacle}")
    return not obstacle


def choose_backend(backend: str, *tensors: Tensor | None) -> str:
    """Choose ``'torch'`` or ``'triton'`` for one call.

    The automatic choice takes the kernels where they run on a GPU; on the CPU, PyTorch's own
    operators are at home, and the interpreter is there for tests that ask for it. Where a GPU has
    to do without the kernels, the log says so once.

    Args:
        backend (str): See :func:`check_backend`.
        *tensors (Tensor, optional): What the operator reads.

    Raises:
        RuntimeError: If ``'triton'`` was asked for and cannot run.
        ValueError: If ``backend`` is unknown.
    """
    backend = check_backend(backend)
    if backend == 'triton':
        can_run_triton(*tensors, raise_error=True)
    if backend != 'auto':
        return backend
    if tensors[0].device.type == 'cpu':
        return 'torch'
    if can_run_triton(*tensors):
        return 'triton'
    if not torch.compiler.is_compiling():
        _report_once(_obstacle(tensors))
    return 'torch'


def on_device(device: torch.device) -> AbstractContextManager:
    """Context of a kernel launch: Triton takes the current GPU, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def _obstacle(tensors: Sequence[Tensor | None]) -> str | None:
    """What keeps the kernels from these tensors, in words; None if nothing does."""
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
        if tensor.dtype not in _DTYPES:
            return f'dtype {tensor.dtype} is not supported'
    return None


def _report_once(obstacle: str) -> None:
    if obstacle not in _reported:
        _reported.add(obstacle)
        logger.warning('upsampling without Triton kernels, on PyTorch operators: %s', obstacle)
