"""FreqFusion: frequency-aware feature fusion (arXiv 2408.12879)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.checks import check_multiple, check_positive
from mmdysample.ops.dysample import full_precision
from mmdysample.ops.layers import at_least_float32, convolve, normalise_groups
from mmdysample.ops.reassembly import reassemble, softmax_kernels
from mmdysample.upsamplers.base import Upsampler, check_flags, draw_weights, register_upsampler
from mmdysample.upsamplers.dysample import initial_displacement

OFFSETS_FROM = ('feature', 'similarity')
NEIGHBOURS, DILATION = 8, 2


@register_upsampler('freqfusion')
class FreqFusion(Upsampler):
    """Smooth ``x`` by low-pass kernels, resample it, and sharpen the guide by a high-pass.

    The two features predict low-pass kernels that reassemble ``x`` and high-pass kernels that add
    to the guide what it loses by smoothing; both predictions are made with the compressed guide
    already sharpened. Offsets from the similarity of neighbours then resample the upsampled ``x``.
    It upsamples by 2 only.

    The method has two results, :meth:`fuse`: ``x`` upsampled and the guide enhanced; the published
    networks add or concatenate these. :meth:`forward` returns the first. With ``details=True`` it
    also adds what the second adds to the guide, so a pyramid, which adds the guide to the result,
    ends up with the sum of the two.

    Everything is computed in float32 or wider. Parameters and buffers carry the published names.

    Args:
        in_channels (int): Channels ``C`` of ``x``, a multiple of ``feature_resample_group``.
        scale_factor (int): 2. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide. Defaults to ``in_channels``.
        lowpass_kernel (int): Side of the kernels for ``x``, odd. Defaults to 5.
        highpass_kernel (int): Side of the kernels for the guide, odd. Defaults to 3.
        compressed_channels (int): Channels that both features are compressed to, a multiple of
            ``feature_resample_group`` and of an eighth of themselves, rounded down. Defaults to 64.
        feature_resample (bool): Resample the result. Defaults to True.
        feature_resample_group (int): Channel groups with offsets of their own. Defaults to 4.
        feature_resample_norm (bool): Normalise what the offsets are predicted from.
            Defaults to True.
        hamming_window (bool): Weigh the kernels by a Hamming window. Defaults to True.
        offsets_from (str): ``'feature'``: offsets and their scales see features and similarities,
            as in the published detectors; ``'similarity'``: offsets see the similarities alone,
            scales the features, as in the published SegNeXt. Defaults to ``'feature'``.
        details (bool): Let :meth:`forward` add the guide's details, which needs
            ``guide_channels == in_channels``. Defaults to False.

    Raises:
        ValueError: If an option is out of range or channel numbers do not fit.
        TypeError: If a flag is not a bool.
    """

    guided = True
    only_doubles = True
    shown = ('lowpass_kernel', 'highpass_kernel', 'details')

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        lowpass_kernel: int = 5,
        highpass_kernel: int = 3,
        compressed_channels: int = 64,
        feature_resample: bool = True,
        feature_resample_group: int = 4,
        feature_resample_norm: bool = True,
        hamming_window: bool = True,
        offsets_from: str = 'feature',
        details: bool = False,
    ) -> None:
        super().__init__(in_channels, scale_factor, guide_channels=guide_channels)
        check_positive('lowpass_kernel', lowpass_kernel, odd=True)
        check_positive('highpass_kernel', highpass_kernel, odd=True)
        check_positive('compressed_channels', compressed_channels)
        check_positive('feature_resample_group', feature_resample_group)
        check_flags(feature_resample=feature_resample, feature_resample_norm=feature_resample_norm)
        check_flags(hamming_window=hamming_window, details=details)
        if offsets_from not in OFFSETS_FROM:
            raise ValueError(f'offsets_from must be one of {OFFSETS_FROM}, got {offsets_from!r}')
        if details:
            self._need_equal_channels('details=True')
        self.lowpass_kernel = lowpass_kernel
        self.highpass_kernel = highpass_kernel
        self.details = details
        self.hr_channel_compressor = nn.Conv2d(self.guide_channels, compressed_channels, 1)
        self.lr_channel_compressor = nn.Conv2d(in_channels, compressed_channels, 1)
        self.content_encoder = nn.Conv2d(compressed_channels, lowpass_kernel**2, 3, padding=1)
        self.content_encoder2 = nn.Conv2d(compressed_channels, highpass_kernel**2, 3, padding=1)
        self.dysampler = None
        if feature_resample:
            check_multiple('in_channels', in_channels, of=feature_resample_group)
            check_multiple('compressed_channels', compressed_channels, of=feature_resample_group)
            self.dysampler = _Resampler(
                compressed_channels, feature_resample_group, feature_resample_norm, offsets_from
            )
        self.register_buffer('hamming_lowpass', _window(lowpass_kernel, hamming_window))
        self.register_buffer('hamming_highpass', _window(highpass_kernel, hamming_window))
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform weights, but both encoders from N(0, 0.001²); zero biases.

        That includes the offsets, so a fresh module does not start near bilinear interpolation.
        """
        draw_weights(self, nn.init.xavier_uniform_)
        nn.init.normal_(self.content_encoder.weight, std=0.001)
        nn.init.normal_(self.content_encoder2.weight, std=0.001)

    def fuse(
        self, x: Tensor, guide: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Upsample ``x`` and enhance the guide; see :meth:`Upsampler.fuse`."""
        both = self._run_checked(self._both, x, guide, size)
        out, enhanced = both.split((self.in_channels, self.guide_channels), dim=1)
        return out, enhanced

    def _both(self, x: Tensor, guide: Tensor, size: tuple[int, int]) -> Tensor:
        """The two results, one after the other in the channels: the checks expect one tensor."""
        with full_precision(x.device):
            out, details = self._fuse(x, guide, details=True)
            both = torch.cat((out, at_least_float32(guide) + details), dim=1)
        return both[..., : size[0], : size[1]].to(x.dtype)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Upsample ``x``, with the guide's details where asked for, and cut to ``size``."""
        with full_precision(x.device):
            out, details = self._fuse(x, guide, self.details)
            if details is not None:
                out = out + details
        return out[..., : size[0], : size[1]].to(x.dtype)

    def _fuse(self, x: Tensor, guide: Tensor, details: bool) -> tuple[Tensor, Tensor | None]:
        """``x`` upsampled and, where asked for, what the guide loses by smoothing."""
        x, guide = at_least_float32(x), at_least_float32(guide)
        fine = convolve(self.hr_channel_compressor, guide)
        coarse = convolve(self.lr_channel_compressor, x)
        high = convolve(self.content_encoder2, fine)
        fine = 2 * fine - self._filter(fine, self._high(high))
        low = convolve(self.content_encoder, fine)
        low = low + self._raise(convolve(self.content_encoder, coarse), self._low(low))
        lowpass = self._low(low)
        out = self._raise(x, lowpass)
        if self.dysampler is not None:
            out = self.dysampler(out, fine, coarse)
        if not details:
            return out, None
        high = high + self._raise(convolve(self.content_encoder2, coarse), lowpass)
        return out, guide - self._filter(guide, self._high(high))

    def macs(self, height: int, width: int) -> int:
        """Convolutions, similarities, reassemblies, offsets times scales, and four corners."""
        low, high = self.content_encoder, self.content_encoder2
        coarse = self.lr_channel_compressor.weight.numel() + low.weight.numel()
        fine = self.hr_channel_compressor.weight.numel()
        fine += low.weight.numel() + high.weight.numel()
        fine += high.in_channels * high.out_channels  # the compressed guide is smoothed
        fine += (low.out_channels + self.in_channels) * low.out_channels  # logits and x
        if self.details:
            coarse += high.weight.numel()
            fine += high.out_channels * (low.out_channels + self.guide_channels)
        if self.dysampler is not None:
            similarities = NEIGHBOURS * low.in_channels
            coarse += similarities + self.dysampler.weights('offset', 'direct_scale')
            fine += similarities + self.dysampler.weights('hr_offset', 'hr_direct_scale')
            fine += 2 * self.dysampler.groups + 4 * self.in_channels
        return (coarse + 4 * fine) * height * width

    def _low(self, logits: Tensor) -> Tensor:
        return _normalise(logits, self.hamming_lowpass)

    def _high(self, logits: Tensor) -> Tensor:
        return _normalise(logits, self.hamming_highpass)

    def _raise(self, feature: Tensor, kernels: Tensor) -> Tensor:
        """Reassemble a coarse feature at the fine size."""
        return reassemble(feature, kernels, kernel_size=self.lowpass_kernel)

    def _filter(self, feature: Tensor, kernels: Tensor) -> Tensor:
        """Smooth a fine feature, each pixel by its own kernel over the window around it."""
        side = self.highpass_kernel
        padded = F.pad(feature, 4 * [side // 2])
        height, width = feature.shape[-2:]
        out = 0
        for tap, weight in enumerate(kernels.split(1, 1)):
            row, column = divmod(tap, side)
            out = out + weight * padded[..., row : row + height, column : column + width]
        return out


class _Resampler(nn.Module):
    """Resample a fine feature at offsets that the similarity of neighbours predicts."""

    def __init__(self, channels: int, groups: int, norm: bool, offsets_from: str) -> None:
        super().__init__()
        self.groups = groups
        self.offsets_from = offsets_from
        scales_see = channels + NEIGHBOURS if offsets_from == 'feature' else channels
        offsets_see = channels + NEIGHBOURS if offsets_from == 'feature' else NEIGHBOURS
        self.offset = nn.Conv2d(offsets_see, 8 * groups, 3, padding=1)
        self.direct_scale = nn.Conv2d(scales_see, 8 * groups, 3, padding=1)
        self.hr_offset = nn.Conv2d(offsets_see, 2 * groups, 3, padding=1)
        self.hr_direct_scale = nn.Conv2d(scales_see, 2 * groups, 3, padding=1)
        self.norm_hr = self.norm_lr = None
        if norm:
            parts = max(channels // 8, 1)
            check_multiple('compressed_channels', channels, of=parts)
            self.norm_hr = nn.GroupNorm(parts, channels)
            self.norm_lr = nn.GroupNorm(parts, channels)
        # For published checkpoints alone: an offset counts from the output pixel itself below.
        self.register_buffer('init_pos', initial_displacement(groups, 2))

    def forward(self, feature: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        if self.norm_hr is not None:
            fine = normalise_groups(self.norm_hr, fine)
            coarse = normalise_groups(self.norm_lr, coarse)
        fine_sees, coarse_sees = self._sees(fine), self._sees(coarse)
        offset = F.pixel_shuffle(convolve(self.offset, coarse_sees[0]), 2)
        offset = offset + convolve(self.hr_offset, fine_sees[0])
        scale = F.pixel_shuffle(convolve(self.direct_scale, coarse_sees[1]), 2)
        scale = scale + convolve(self.hr_direct_scale, fine_sees[1])
        shift = 2 * (offset * scale.sigmoid()).unflatten(1, (2, self.groups))  # in fine pixels
        height, width = feature.shape[-2:]
        options = dict(dtype=shift.dtype, device=shift.device)
        x = 2 * (torch.arange(width, **options) + shift[:, 0]) / (width - 1) - 1
        y = 2 * (torch.arange(height, **options)[:, None] + shift[:, 1]) / (height - 1) - 1
        grid = torch.stack((x, y), dim=-1).flatten(0, 1)
        groups = feature.unflatten(1, (self.groups, -1)).flatten(0, 1)
        read = F.grid_sample(groups, grid, padding_mode='border', align_corners=True)
        return read.unflatten(0, (-1, self.groups)).flatten(1, 2)

    def weights(self, *names: str) -> int:
        """Weights of the convolutions of these names."""
        return sum(getattr(self, name).weight.numel() for name in names)

    def _sees(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """What the offsets and what the scales are predicted from."""
        similarity = _similarity(feature)
        if self.offsets_from == 'similarity':
            return similarity, feature
        both = torch.cat((feature, similarity), dim=1)
        return both, both


def _similarity(feature: Tensor) -> Tensor:
    """Cosine between each pixel and its eight neighbours two pixels away; 0 outside the map."""
    length = feature.norm(dim=1, keepdim=True).clamp_min(1e-8)
    unit = feature / length
    padded = F.pad(unit, 4 * [DILATION])
    height, width = feature.shape[-2:]
    maps = []
    for tap in (0, 1, 2, 3, 5, 6, 7, 8):
        row, column = (DILATION * index for index in divmod(tap, 3))
        maps.append((unit * padded[..., row : row + height, column : column + width]).sum(1))
    return torch.stack(maps, dim=1)


def _normalise(logits: Tensor, window: Tensor) -> Tensor:
    kernels = softmax_kernels(logits) * window.to(logits.dtype).reshape(1, -1, 1, 1)
    return kernels / kernels.sum(1, keepdim=True)


def _window(side: int, hamming: bool) -> Tensor:
    """The published buffer: ``(1, 1, side, side)``, or a single 1 without a window."""
    if not hamming:
        return torch.ones(1)
    line = torch.hamming_window(side, periodic=False, dtype=torch.float64)
    return (line[:, None] * line)[None, None].float()
