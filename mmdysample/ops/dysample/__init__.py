"""Point-sampling upsampling (DySample, arXiv 2308.15085): check, choose an implementation, run."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from mmdysample.ops.backend import choose_backend
from mmdysample.ops.checks import check_feature, resolve_size
from mmdysample.ops.dysample.eager import sample_eager
from mmdysample.ops.dysample.gather import sample_gather
from mmdysample.ops.dysample.naive import sample_naive
from mmdysample.ops.dysample.operator import sample_compiled
from mmdysample.ops.dysample.spec import INITS, STYLES, SamplingSpec

__all__ = ['INITS', 'STYLES', 'SamplingSpec', 'dysample', 'full_precision', 'sample_naive']


def dysample(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None = None,
    *,
    scale_factor: int = 2,
    groups: int = 4,
    style: str = 'lp',
    scope_factor: float | None = None,
    init: str = 'bilinear',
    size: tuple[int, int] | None = None,
    backend: str = 'auto',
) -> Tensor:
    r"""Re-sample ``x`` where the offsets say.

    Every output pixel of channel group :math:`g` reads its channels of ``x`` by bilinear
    interpolation at :math:`p_0 + \lambda\,o` (static scope, :math:`\lambda` = ``scope_factor``) or
    :math:`p_0 + \lambda\,\mathrm{sigmoid}(s)\,o` (dynamic scope), where :math:`p_0` is the initial
    position (Sec. 3.2, Eq. 3 to 5). Positions beyond the outer pixel centres are moved onto them.

    Args:
        x (Tensor): Feature ``(N, C, H, W)``, floating point, any strides; group ``g`` owns the
            channels ``g * C/G`` to ``(g + 1) * C/G - 1``.
        offset (Tensor): Projected offsets ``o`` in input pixels, x before y. Style ``'lp'``:
            ``(N, 2 * G * s * s, H, W)`` with channel ``((axis * G + g) * s + i) * s + j`` for the
            sub-position ``(i, j)``. Style ``'pl'``: ``(N, 2 * G, sH, sW)`` with channel
            ``axis * G + g``.
        scope (Tensor, optional): Projected scopes ``s`` before the sigmoid, shaped as ``offset``.
            Defaults to None, static scope.
        scale_factor (int): The factor ``s``. Defaults to 2.
        groups (int): Channel groups ``G`` that share offsets. Defaults to 4.
        style (str): ``'lp'`` (linear, then pixel shuffle) or ``'pl'`` (the reverse).
            Defaults to ``'lp'``.
        scope_factor (float, optional): Defaults to 0.25 for static and 0.5 for dynamic scope.
        init (str): Initial positions, ``'bilinear'`` or ``'nearest'``. Defaults to ``'bilinear'``.
        size (tuple[int, int], optional): Output size ``(h', w')``, ``s(H-1) < h' <= sH``: the
            ``sH x sW`` result cut, not stretched. Defaults to ``(sH, sW)``.
        backend (str): ``'torch'``, ``'native'``, ``'triton'``, or ``'auto'``: what the environment
            variable ``MMDYSAMPLE_BACKEND`` says, else native code on the CPU where Numba is
            installed, and the Triton kernel on GPUs that run it. ``'gather'`` looks rows up and
            multiplies, for exports to runtimes without ``GridSample``. Defaults to ``'auto'``.

    Returns:
        Tensor: ``(N, C, h', w')`` in the dtype of ``x``, channels_last where ``x`` is. Positions
        and interpolation are computed in float32, or in float64 where an input is float64. A NaN
        offset makes its own output pixel NaN and no other.

    Raises:
        TypeError: If a tensor is not floating point, or ``scope_factor`` or ``size`` no number.
        ValueError: If a shape, ``style``, ``init``, ``groups``, ``scale_factor``, ``size`` or
            ``backend`` does not fit.
        RuntimeError: If the ``backend`` asked for cannot run.
    """
    check_feature('x', x)
    dynamic = scope is not None
    spec = SamplingSpec.make(scale_factor, groups, style, scope_factor, init, dynamic=dynamic)
    size = resolve_size(x, scale_factor, size)
    if not torch.jit.is_tracing():
        _check_projections(x, offset, scope, spec)
    with full_precision(x.device):
        if backend == 'gather':
            return sample_gather(x, offset, scope, spec, size)
        chosen = choose_backend(backend, x, offset, scope, trial=_trial)
        if chosen == 'torch':
            return sample_eager(x, offset, scope, spec, size)
        return sample_compiled(x, offset, scope, spec, size, chosen)


def _trial(backend: str, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Result and gradients of a tiny sampling."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 8, 3, 5), (1, 16, 3, 5), (1, 16, 3, 5))
    x, offset, scope = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    leaves = [x.to(dtype).requires_grad_(), offset.requires_grad_(), scope.requires_grad_()]
    out = dysample(*leaves, groups=2, backend=backend)
    return [out.detach(), *torch.autograd.grad(out, leaves, torch.ones_like(out))]


def full_precision(device: torch.device):
    """Context without autocast, entered only where autocast is on (it would show in exports)."""
    return torch.autocast(device.type, enabled=False) if is_autocast(device) else nullcontext()


def is_autocast(device: torch.device) -> bool:
    """Whether autocast is on for a device."""
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _check_projections(x: Tensor, offset: Tensor, scope: Tensor | None, spec: SamplingSpec) -> None:
    scale_factor, groups, style = spec[:3]
    n, channels, height, width = x.shape
    if channels % groups:
        raise ValueError(f'groups must divide the {channels} channels of x, got {groups}')
    if style == 'lp':
        expected = (n, 2 * groups * scale_factor**2, height, width)
    else:
        expected = (n, 2 * groups, height * scale_factor, width * scale_factor)
    for name, tensor in (('offset', offset), ('scope', scope)):
        if name == 'scope' and tensor is None:
            continue
        check_feature(name, tensor)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f'{name} must be of shape {expected} for style {style!r}, '
                f'groups={groups}, scale_factor={scale_factor}, got {tuple(tensor.shape)}'
            )
