"""What is timed: ways to sample, the operators of the rivals, and whole upsamplers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.costs.formulations import (
    PublishedDySample,
    gather_sampling,
    initial_displacement,
    published_sampling,
)
from mmdysample.ops import dysample, reassemble, window_similarity
from mmdysample.ops.backend import HAS_TRITON, can_run_native, can_run_triton
from mmdysample.ops.reassembly.mmcv_carafe import mmcv_has_cuda
from mmdysample.upsamplers import build_upsampler, upsampler_names

CHANNELS, GROUPS, SCALE = 256, 4, 2
FORMATS = {'nchw': torch.contiguous_format, 'channels_last': torch.channels_last}
Shapes = Sequence[tuple[int, int, int]]
NATIVE = ('dysample', 'carafe', 'fade', 'sapa_b', 'a2u')
"""Upsamplers that are timed by their native kernels and by plain PyTorch too."""


@dataclass
class Candidate:
    """Something to time on the features of one workload.

    Args:
        name (str): What to call it.
        steps (list): One function and its differentiable arguments per feature.
        parameters (list): What else is differentiated by. Defaults to none.
    """

    name: str
    steps: list[tuple[Callable[..., Tensor], list[Tensor]]]
    parameters: list[nn.Parameter] = field(default_factory=list)

    def forward(self) -> None:
        """Upsample every feature."""
        with torch.no_grad():
            for function, arguments in self.steps:
                function(*arguments)

    def forward_backward(self) -> None:
        """Upsample every feature, and differentiate by arguments and parameters."""
        for function, arguments in self.steps:
            out = function(*arguments)
            torch.autograd.grad(out, [*arguments, *self.parameters], torch.ones_like(out))


def sampling_candidates(
    shapes: Shapes, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
) -> Iterator[Candidate]:
    """Make ways to sample given offsets, and the interpolations: no projection is timed."""
    features = list(_features(shapes, dtype, memory_format, device))
    offsets = [
        torch.randn(n, 2 * GROUPS * SCALE**2, h, w, device=device).requires_grad_()
        for n, h, w in shapes
    ]
    initial = initial_displacement(GROUPS, SCALE, device)

    def published(x: Tensor, offset: Tensor) -> Tensor:
        return published_sampling(x.float(), offset * 0.25 + initial, GROUPS, SCALE).to(x.dtype)

    def gather(x: Tensor, offset: Tensor) -> Tensor:
        return gather_sampling(x, offset * 0.25 + initial, GROUPS, SCALE)

    def pairs(function: Callable[..., Tensor]) -> list[tuple[Callable[..., Tensor], list[Tensor]]]:
        return [(function, [x, offset]) for x, offset in zip(features, offsets, strict=True)]

    for mode in ('bilinear', 'nearest'):
        resize = partial(F.interpolate, scale_factor=SCALE, mode=mode)
        yield Candidate(mode, [(resize, [x]) for x in features])
    yield Candidate('published', pairs(published))
    ours = partial(dysample, scale_factor=SCALE, groups=GROUPS)
    yield Candidate('dysample (torch)', pairs(partial(ours, backend='torch')))
    if can_run_native(features[0]):
        yield Candidate('dysample (native)', pairs(partial(ours, backend='native')))
    if device.type == 'cuda' and can_run_triton(features[0]):
        yield Candidate('dysample (triton)', pairs(partial(ours, backend='triton')))
    # Compiling takes far longer than measuring. Last, as its import alone takes seconds.
    if len(shapes) == 1:
        yield Candidate('compiled gather', pairs(torch.compile(gather, dynamic=False)))
        if device.type == 'cuda':
            yield Candidate('compiled published', pairs(torch.compile(published, dynamic=False)))


def reassembly_candidates(
    shapes: Shapes, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
) -> Iterator[Candidate]:
    """Make bilinear interpolation, then the rivals' operators with windows of 5 x 5."""
    features, kernels, queries = [], [], []
    for n, h, w in shapes:
        fine = (SCALE * h, SCALE * w)
        for made, shape in (
            (features, (n, CHANNELS, h, w)),
            (kernels, (n, 25, *fine)),
            (queries, (n, CHANNELS, *fine)),
        ):
            tensor = torch.randn(shape, device=device, dtype=dtype)
            made.append(tensor.to(memory_format=memory_format).requires_grad_())
    resize = partial(F.interpolate, scale_factor=SCALE, mode='bilinear')
    yield Candidate('bilinear', [(resize, [x]) for x in features])
    for backend in ('torch', 'triton') if device.type == 'cuda' and HAS_TRITON else ('torch',):
        options = dict(kernel_size=5, scale_factor=SCALE, backend=backend)
        run = partial(reassemble, **options)
        pairs = zip(features, kernels, strict=True)
        yield Candidate(f'reassemble ({backend})', [(run, [x, k]) for x, k in pairs])
        run = partial(window_similarity, **options)
        pairs = zip(queries, features, strict=True)
        yield Candidate(f'window_similarity ({backend})', [(run, [q, x]) for q, x in pairs])


def upsampler_candidates(
    shapes: Shapes, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
) -> Iterator[Candidate]:
    """Make every registered upsampler and other implementations of two, as whole modules.

    With several threads of a CPU only those that have native kernels, and bilinear interpolation.
    """
    features = list(_features(shapes, dtype, memory_format, device))
    guides = [
        torch.randn(n, CHANNELS, SCALE * h, SCALE * w, dtype=dtype, device=device).requires_grad_()
        for n, h, w in shapes
    ]
    names = ['bilinear', *(n for n in upsampler_names() if n not in ('bilinear', 'interpolate'))]
    if device.type == 'cpu' and torch.get_num_threads() > 1:  # the slow ones cost minutes
        names = [name for name in names if name in ('bilinear', 'dysample_s_plus', *NATIVE)]
    modules = {name: build_upsampler(name, CHANNELS) for name in names}
    if device.type == 'cpu' and can_run_native(features[0]):
        modules |= {
            f'{name} (torch)': build_upsampler(dict(type=name, backend='torch'), CHANNELS)
            for name in NATIVE
        }
    for name, module in (modules | other_implementations(device)).items():
        module = module.to(device, memory_format=memory_format)
        if getattr(module, 'guided', False):
            steps = [(module, [x, g]) for x, g in zip(features, guides, strict=True)]
        else:
            steps = [(module, [x]) for x in features]
        trained = [p for p in module.parameters() if p.requires_grad]
        yield Candidate(name, steps, trained)


def other_implementations(device: torch.device) -> dict[str, nn.Module]:
    """Make DySample as published; on a GPU, CARAFE by our kernel alone and by MMCV's module."""
    modules: dict[str, nn.Module] = {'published dysample': PublishedDySample(CHANNELS)}
    if device.type == 'cuda' and HAS_TRITON:
        modules['carafe (triton)'] = build_upsampler(
            dict(type='carafe', backend='triton'), CHANNELS
        )
    if device.type == 'cuda' and mmcv_has_cuda():
        from mmcv.ops import CARAFEPack

        modules['carafe (mmcv)'] = CARAFEPack(CHANNELS, SCALE)
    return modules


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Compare every way of sampling with float64 before any is timed.

    Raises:
        RuntimeError: If one is wrong by more than rounding.
    """
    x = torch.randn(2, 8, 9, 11, device=device, dtype=dtype)
    offset = torch.randn(2, 2 * GROUPS * SCALE**2, 9, 11, device=device)
    exact = dysample(x.double(), offset.double(), groups=GROUPS, backend='torch')
    displacement = offset * 0.25 + initial_displacement(GROUPS, SCALE, device)
    results = {
        'published': published_sampling(x.float(), displacement, GROUPS, SCALE),
        'gather': gather_sampling(x, displacement, GROUPS, SCALE),
        'torch': dysample(x, offset, groups=GROUPS, backend='torch'),
    }
    if can_run_native(x):
        results['native'] = dysample(x, offset, groups=GROUPS, backend='native')
    if device.type == 'cuda' and can_run_triton(x):
        results['triton'] = dysample(x, offset, groups=GROUPS, backend='triton')
    bound = torch.finfo(dtype).eps * exact.abs().max() + 1e-5
    for name, result in results.items():
        error = (result.double() - exact).abs().max()
        if not error <= bound:
            raise RuntimeError(f'{name} in {dtype} is off by {error:.3g}, allowed {bound:.3g}')


def _features(
    shapes: Shapes, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
) -> Iterator[Tensor]:
    for n, h, w in shapes:
        x = torch.randn(n, CHANNELS, h, w, device=device, dtype=dtype)
        yield x.to(memory_format=memory_format).requires_grad_()
