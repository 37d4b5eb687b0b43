"""Downsampling by learned point sampling."""

from __future__ import annotations

from torch import Tensor, nn

from mmdysample.ops.checks import check_feature, check_multiple, check_positive
from mmdysample.ops.dysample import SamplingSpec
from mmdysample.ops.dysample.downsample import check_points, dysample_down, pool
from mmdysample.upsamplers.base import check_flags, draw_weights
from mmdysample.upsamplers.dysample import project


class DySampleDown(nn.Module):
    """Downsample by sampling at learned positions: ``(N, C, H, W)`` to ``ceil(H/s), ceil(W/s)``.

    DySample the other way round. A 1x1 convolution of the average-pooled feature predicts an
    offset for each point and channel group, and the feature is read at ``initial position + scope
    * offset`` by bilinear interpolation; :func:`mmdysample.ops.dysample_down` says which
    points there are. A fresh module is average pooling, or with ``init='strided'`` takes every
    ``s``-th pixel, up to its small random offsets.

    Args:
        in_channels (int): Channels ``C``, a multiple of ``groups``.
        scale_factor (int): The factor ``s``, at least 2. Defaults to 2.
        groups (int): Channel groups with offsets of their own. Defaults to 4.
        dyscope (bool): Scope predicted per point instead of constant. Defaults to False.
        scope_factor (float, optional): The static scope, or the maximum of the dynamic one; offsets
            are counted in pixels of the output. Defaults to 0.25 (static) or 0.5.
        init (str): Initial positions: ``'average'``, all pixels of a window, or ``'strided'``, its
            upper left one. Defaults to ``'average'``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is out of range or channels cannot be divided as needed.
    """

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        groups: int = 4,
        dyscope: bool = False,
        scope_factor: float | None = None,
        init: str = 'average',
    ) -> None:
        super().__init__()
        check_positive('in_channels', in_channels)
        check_flags(dyscope=dyscope)
        check_points(init)
        spec = SamplingSpec.make(scale_factor, groups, 'lp', scope_factor, dynamic=dyscope)
        check_multiple('in_channels', in_channels, groups)
        self.in_channels = in_channels
        self.scale_factor = scale_factor
        self.groups = groups
        self.dyscope = dyscope
        self.scope_factor = spec.scope_factor
        self.init = init
        outputs = 2 * groups * (scale_factor**2 if init == 'average' else 1)
        self.offset = nn.Conv2d(in_channels, outputs, 1)
        if dyscope:
            self.scope = nn.Conv2d(in_channels, outputs, 1, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the offset weights from N(0, 0.001²), as DySample does; all else starts at zero."""
        draw_weights(self, nn.init.zeros_)
        nn.init.normal_(self.offset.weight, std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Downsample a feature map.

        Args:
            x (Tensor): Feature ``(N, C, H, W)``, floating point, any strides.

        Returns:
            Tensor: ``(N, C, ceil(H/s), ceil(W/s))`` in the dtype of ``x``.

        Raises:
            ValueError: If the shape does not fit.
            TypeError: If ``x`` is not a floating-point tensor.
        """
        check_feature('x', x, self.in_channels)
        offset = self.predict(x)
        return dysample_down(x, offset, scale_factor=self.scale_factor, init=self.init)

    def predict(self, x: Tensor) -> Tensor:
        """Predict offsets as :func:`mmdysample.ops.dysample_down` takes them."""
        coarse = pool(x, self.scale_factor)
        offset = self.scope_factor * project(self.offset, coarse)
        if self.dyscope:
            offset = offset * project(self.scope, coarse).sigmoid()
        side = self.scale_factor if self.init == 'average' else 1
        # A pixel shuffle, without PyTorch's, which refuses an empty batch in its backward pass.
        offset = offset.unflatten(1, (2, self.groups, side, side)).permute(0, 2, 1, 5, 3, 6, 4)
        return offset.flatten(5).flatten(3, 4)[..., : x.shape[2], : x.shape[3]]

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of one image, counted as :meth:`Upsampler.macs` does.

        Args:
            height (int): Height of the feature to downsample, in pixels.
            width (int): Its width.

        Returns:
            int: The projections of an output pixel; for each point scope times offset, and four
            taps a channel.
        """
        pixels = -(-height // self.scale_factor) * -(-width // self.scale_factor)
        points = height * width if self.init == 'average' else pixels
        projections = self.offset.weight.numel() * (1 + self.dyscope)
        return projections * pixels + (2 * self.groups + 4 * self.in_channels) * points

    def extra_repr(self) -> str:
        """Show the options in ``print(model)``."""
        names = ('scale_factor', 'groups', 'dyscope', 'scope_factor', 'init')
        return ', '.join((str(self.in_channels), *(f'{n}={getattr(self, n)!r}' for n in names)))
