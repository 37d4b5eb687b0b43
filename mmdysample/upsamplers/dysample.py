"""DySample: upsampling by learned point sampling (arXiv 2308.15085)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmdysample.ops.backend import check_backend
from mmdysample.ops.checks import check_feature
from mmdysample.ops.dysample import SamplingSpec, dysample, full_precision, is_autocast
from mmdysample.ops.dysample.eager import initial_positions, sampling_positions
from mmdysample.ops.layers import (
    convolve_pixels,
    may_multiply,
    multiply_pixels,
    multiply_shuffled,
)
from mmdysample.upsamplers.base import (
    Upsampler,
    append_zeros,
    check_flags,
    register_upsampler,
)

logger = logging.getLogger(__name__)


@register_upsampler('dysample', style='lp', groups=4, dyscope=False)
@register_upsampler('dysample_plus', style='lp', groups=4, dyscope=True)
@register_upsampler('dysample_s', style='pl', groups=8, dyscope=False)
@register_upsampler('dysample_s_plus', style='pl', groups=8, dyscope=True)
class DySample(Upsampler):
    r"""Upsample by sampling every output pixel at a learned position.

    A 1x1 convolution predicts an offset for each output pixel and channel group; the feature is
    read at ``initial position + scope * offset`` by bilinear interpolation (Sec. 3). A fresh
    module equals bilinear interpolation (``align_corners=False``) up to its small random offsets.

    The paper's four members are names of this class:

    ===================  =======  ========  =========
    type                 style    groups    dyscope
    ===================  =======  ========  =========
    ``dysample``         ``lp``   4         False
    ``dysample_plus``    ``lp``   4         True
    ``dysample_s``       ``pl``   8         False
    ``dysample_s_plus``  ``pl``   8         True
    ===================  =======  ========  =========

    Parameters and buffers carry the published names and shapes, so published weights load with
    ``strict=True``. ``init_pos`` is kept for that alone: positions are computed from the pixel
    index in float32 or wider, whatever the dtype of the module or of autocast.

    Args:
        in_channels (int): Channels ``C``, a multiple of ``groups``; for style ``'pl'`` of
            ``scale_factor ** 2`` too.
        scale_factor (int): The factor ``s``, at least 2. Defaults to 2.
        style (str): ``'lp'``: project, then pixel shuffle; ``'pl'``: pixel shuffle, then project,
            with ``s * s`` times fewer inputs and outputs. Defaults to ``'lp'``.
        groups (int): Channel groups with offsets of their own. Defaults to 4.
        dyscope (bool): Scope predicted per point (the "+" members) instead of constant.
            Defaults to False.
        scope_factor (float, optional): The static scope, or the maximum of the dynamic one; the
            paper's ablation tries 1, 0.5, 0.25 and 0.1. Defaults to 0.25 (static) or 0.5.
        init (str): Initial sampling positions, ``'bilinear'`` or ``'nearest'``.
            Defaults to ``'bilinear'``.
        scope_bias (bool): Give the scope convolution a bias, as the authors' detection and
            segmentation code does. Added by itself when weights that carry one are loaded; set
            it where such weights are to be trained further. Defaults to False.
        backend (str): ``'auto'``, ``'torch'``, ``'native'``, ``'triton'`` or ``'gather'``, what
            samples the feature; see :func:`mmdysample.ops.dysample`. Defaults to ``'auto'``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range or channels cannot be divided as needed.
    """

    shown = ('style', 'groups', 'dyscope', 'scope_factor', 'init')

    layout: str
    """Style in which :meth:`projections` lays its results out; here the layer's own."""

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        style: str = 'lp',
        groups: int = 4,
        dyscope: bool = False,
        scope_factor: float | None = None,
        init: str = 'bilinear',
        scope_bias: bool = False,
        backend: str = 'auto',
    ) -> None:
        super().__init__(in_channels, scale_factor)
        check_flags(dyscope=dyscope, scope_bias=scope_bias)
        spec = SamplingSpec.make(scale_factor, groups, style, scope_factor, init, dynamic=dyscope)
        if in_channels % groups:
            raise ValueError(
                f'groups must be a positive integer that divides in_channels={in_channels}, '
                f'got {groups!r}'
            )
        if style == 'pl' and in_channels % scale_factor**2:
            raise ValueError(
                f'in_channels must be a multiple of scale_factor ** 2 = {scale_factor**2} '
                f"for style 'pl', got {in_channels}"
            )
        if scope_bias and not dyscope:
            raise ValueError(
                'scope_bias=True needs dyscope=True: a static scope has no convolution'
            )
        self.style = style
        self.layout = style
        self.groups = groups
        self.dyscope = dyscope
        self.scope_factor = spec.scope_factor
        self.init = init
        if backend != 'gather':
            check_backend(backend)
        self.backend = backend

        shuffled = scale_factor**2 if style == 'pl' else 1
        projection = (in_channels // shuffled, 2 * groups * scale_factor**2 // shuffled, 1)
        self.offset = nn.Conv2d(*projection)
        if dyscope:
            self.scope = nn.Conv2d(*projection, bias=scope_bias)
        self.register_buffer('init_pos', initial_displacement(groups, scale_factor, init=init))
        self.register_load_state_dict_pre_hook(_adapt_weights)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the offset weights from N(0, 0.001²); everything else starts at zero."""
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)
        if self.dyscope:
            nn.init.zeros_(self.scope.weight)
            if self.scope.bias is not None:
                nn.init.zeros_(self.scope.bias)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Predict the offsets of ``x`` and sample it there."""
        return self._sample(x, *self.projections(x, guide), size)

    def upsample_and_convolve(
        self, convolution: nn.Conv2d, x: Tensor, guide: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Convolve each group's share of ``x`` and sample the results instead of ``x``.

        Sampling is linear, so this is what a convolution of the sampled ``x`` gives. Of ``C``
        channels at the output resolution there remain the convolution's times the groups.
        """
        if convolution.out_channels * self.groups >= self.in_channels:
            return super().upsample_and_convolve(convolution, x, guide, size)
        weight = convolution.weight.unflatten(1, (self.groups, -1)).transpose(0, 1).flatten(0, 1)
        shares = F.conv2d(x, weight, groups=self.groups)
        sampled = self._sample(shares, *self.projections(x, guide), size)
        out = sampled.unflatten(1, (self.groups, -1)).sum(1)
        bias = convolution.bias
        return out if bias is None else out + bias.to(out.dtype).view(-1, 1, 1)

    def _sample(
        self, x: Tensor, offset: Tensor, scope: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        return dysample(
            x,
            offset,
            scope,
            scale_factor=self.scale_factor,
            groups=self.groups,
            style=self.layout,
            scope_factor=self.scope_factor,
            init=self.init,
            size=size,
            backend=self.backend,
        )

    def sampling_positions(
        self, x: Tensor, size: tuple[int, int] | None = None, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Where :meth:`forward` reads ``x``, and how far that is from the initial positions.

        Args:
            x (Tensor): Feature ``(N, C, H, W)``, as for :meth:`forward`.
            size (tuple[int, int], optional): As for :meth:`forward`. Defaults to ``(sH, sW)``.
            guide (Tensor, optional): As for :meth:`forward`.

        Returns:
            tuple[Tensor, Tensor]: ``position`` and ``offset``, each ``(N, G, 2, h', w')`` in input
            pixels, x before y, float32 or wider. Position 0 is the centre of the first input
            pixel; a position beyond the outer centres, which sampling moves onto them, is left
            where it is.

        Raises:
            ValueError: If a shape does not fit, or a guided layer gets no guide.
            TypeError: If ``x`` is not a floating-point tensor.
        """
        check_feature('x', x, self.in_channels)
        if not torch.jit.is_tracing() and x.shape[0] == 0:  # as in forward
            guide = None if guide is None else append_zeros(guide)
            position, offset = self.sampling_positions(append_zeros(x), size, guide)
            return position[:0], offset[:0]
        size = self.output_size(x, size)
        guide = self._check_guide(x, guide, size) if self.guided else None
        projections = self.projections(x, guide)
        spec = SamplingSpec(
            self.scale_factor, self.groups, self.layout, self.scope_factor, self.init
        )
        position = torch.stack(sampling_positions(x, *projections, spec, size), dim=2)
        column, row = (
            initial_positions(length, self.scale_factor, self.init, position.dtype, x.device)
            for length in size[::-1]
        )
        initial = torch.stack((column.expand(size), row[:, None].expand(size)))
        return position, position - initial

    def projections(self, x: Tensor, guide: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Predict raw offsets and scopes; a subclass may predict them from more.

        Args:
            x (Tensor): Feature ``(N, C, H, W)``.
            guide (Tensor, optional): ``(N, Cg, sH, sW)`` where the layer is guided, else None.

        Returns:
            tuple[Tensor, Tensor or None]: ``offset`` and ``scope`` as
            :func:`mmdysample.ops.dysample` takes them in the style :attr:`layout`, in float32 or
            wider; the scope is None where it is static.
        """
        if self.style == 'lp':
            return project(self.offset, x), project(self.scope, x) if self.dyscope else None
        layers = (self.offset, self.scope) if self.dyscope else (self.offset,)
        if may_multiply(x, *(p for layer in layers for p in (layer.weight, layer.bias))):
            products = [project_shuffled(layer, x, self.scale_factor) for layer in layers]
            return products[0], products[1] if self.dyscope else None
        z = F.pixel_shuffle(x, self.scale_factor)
        as_product = _needs_product(x.device)
        scope = project(self.scope, z, as_product) if self.dyscope else None
        return project(self.offset, z, as_product), scope

    def macs(self, height: int, width: int) -> int:
        """Per output pixel: the projections, scope times offset, and four taps per channel."""
        components = 2 * self.groups
        projected = components * self.offset.in_channels * (1 + self.dyscope)
        outputs = self.scale_factor**2 * height * width
        return outputs * (projected + components + 4 * self.in_channels)


def _adapt_weights(
    module: DySample, state_dict: dict[str, Any], prefix: str, *reports: Any
) -> None:
    """Before weights are loaded: make room for a bias of the scope, refuse other positions."""
    error_msgs = reports[-1]
    if module.dyscope and module.scope.bias is None and f'{prefix}scope.bias' in state_dict:
        module.scope.bias = nn.Parameter(module.scope.weight.new_zeros(module.scope.out_channels))
        logger.warning(
            '%s: the weights carry scope.bias, so it is added; an optimizer built before '
            'does not train it, scope_bias=True does',
            prefix.rstrip('.') or type(module).__name__,
        )
    loaded = state_dict.get(f'{prefix}init_pos')
    # Forward computes the positions, so weights made with others must not pass silently.
    if loaded is not None and loaded.shape == module.init_pos.shape and not loaded.is_meta:
        expected = initial_displacement(module.groups, module.scale_factor, 'cpu', module.init)
        if not torch.allclose(loaded.float().cpu(), expected, atol=2e-3):
            error_msgs.append(
                f'{prefix}init_pos holds other initial positions than init={module.init!r}'
            )


def initial_displacement(
    groups: int,
    scale_factor: int,
    device: torch.device | str | None = None,
    init: str = 'bilinear',
) -> Tensor:
    """Make the published buffer: initial positions, counted from the input pixel's centre.

    Returns:
        Tensor: ``(1, 2 * G * s * s, 1, 1)`` in input pixels, x before y. Channel
        ``((axis * G + g) * s + i) * s + j`` is that of output pixel (i, j) of the s x s.
    """
    s = scale_factor
    sub = (torch.arange(s, device=device) - (s - 1) / 2) / s
    if init == 'nearest':
        sub = torch.zeros_like(sub)
    x, y = sub.expand(s, s), sub[:, None].expand(s, s)
    return torch.stack((x, y))[:, None].expand(2, groups, s, s).reshape(1, -1, 1, 1)


def _needs_product(device: torch.device) -> bool:
    """Whether a 1x1 convolution of a shuffled feature has to be a product of matrices.

    Inductor makes the convolution channels_last, and cannot order its strides where height and
    width are free. Under autocast it stays a convolution: Inductor would compute the gradients of
    a product in half precision.
    """
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return False
    return not torch.is_autocast_enabled(device.type)


def project(conv: nn.Conv2d, x: Tensor, as_product: bool = False) -> Tensor:
    """Apply a 1x1 convolution in float32 or wider: offsets become positions.

    Of features in half precision no wider copy is kept for the backward pass.
    """
    recompute = torch.is_grad_enabled() and x.dtype in (torch.float16, torch.bfloat16)
    apply = convolve_pixels
    if as_product:
        apply = multiply_pixels
    elif recompute or is_autocast(x.device):
        # Computed anew, it would not be a product; and autocast, where it is on in the backward
        # pass too, makes the gradients of a product half as precise, not those of a convolution.
        apply = F.conv2d
    with full_precision(x.device):
        if not recompute:
            return _wide_conv(x, conv.weight, conv.bias, apply)
        options = dict(use_reentrant=False, preserve_rng_state=False)
        return checkpoint(_wide_conv, x, conv.weight, conv.bias, apply, **options)


def project_shuffled(conv: nn.Conv2d, x: Tensor, scale_factor: int) -> Tensor:
    """What :func:`project` gives of the pixel-shuffled ``x``, where products may be used."""
    bias = None if conv.bias is None else conv.bias.to(x.dtype)
    return multiply_shuffled(x, scale_factor, conv.weight.to(x.dtype), bias)


def _wide_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, apply: Callable[..., Tensor]
) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return apply(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
