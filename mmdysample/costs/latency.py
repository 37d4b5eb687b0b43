"""Latency and memory of upsamplers, beside bilinear interpolation and the copy bandwidth."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.costs.cpu_memory import FORMATS, peak_of_training_steps
from mmdysample.costs.formulations import (
    PublishedDySample,
    gather_sampling,
    initial_displacement,
    published_sampling,
)
from mmdysample.costs.stopwatch import measure, median_and_quartiles, peak_memory, progress
from mmdysample.engine.provenance import device_name, provenance, save
from mmdysample.ops import dysample
from mmdysample.ops.backend import HAS_TRITON, can_run_native, can_run_triton
from mmdysample.ops.reassembly.mmcv_carafe import mmcv_has_cuda
from mmdysample.upsamplers import build_upsampler, upsampler_names

CHANNELS, GROUPS, SCALE = 256, 4, 2
Shapes = tuple[tuple[int, int, int], ...]
WORKLOADS: dict[str, Shapes] = {
    'paper': ((1, 120, 120),),
    **{f'fpn_b{n}': ((n, 25, 42), (n, 50, 84), (n, 100, 167)) for n in (1, 2, 16)},
    **{
        f'segformer_b{n}': (
            (n, 16, 16),
            (n, 32, 32),
            (n, 64, 64),
            (n, 32, 32),
            (n, 64, 64),
            (n, 64, 64),
        )
        for n in (1, 8)
    },
}
"""Batch, height and width of the 256-channel features that are upsampled by 2: the paper's; the
top-down path of an FPN on an 800 x 1333 image; SegFormer's six on 512 x 512."""

PRESETS = {
    'cpu': dict(
        sampling=('paper', 'fpn_b1', 'segformer_b1'),
        upsamplers=('paper',),
        dtypes=('float32',),
        threads=(1, 2),
        memory=('paper',),
    ),
    'gpu': dict(
        sampling=('paper', 'fpn_b1', 'fpn_b2', 'fpn_b16', 'segformer_b8'),
        upsamplers=('paper', 'fpn_b2', 'segformer_b8'),
        dtypes=('float32', 'float16', 'bfloat16'),
    ),
}
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
    """Ways to sample given offsets, and the interpolations: no projection is timed."""
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
    if len(shapes) == 1:  # compiling takes far longer than measuring
        yield Candidate('compiled gather', pairs(torch.compile(gather, dynamic=False)))
    ours = partial(dysample, scale_factor=SCALE, groups=GROUPS)
    yield Candidate('dysample (torch)', pairs(partial(ours, backend='torch')))
    if can_run_native(features[0]):
        yield Candidate('dysample (native)', pairs(partial(ours, backend='native')))
    if device.type == 'cuda' and can_run_triton(features[0]):
        yield Candidate('dysample (triton)', pairs(partial(ours, backend='triton')))


def upsampler_candidates(
    shapes: Shapes, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
) -> Iterator[Candidate]:
    """Every registered upsampler and other implementations of two, as whole modules.

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
    """DySample as published; on a GPU, CARAFE by our kernel alone and by MMCV's module."""
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


def copy_bandwidth(device: torch.device, elements: int) -> float:
    """Bytes per second of a large copy on the device, read plus written: the ceiling."""
    source = torch.randn(elements, device=device)
    target = torch.empty_like(source)
    times, _ = measure([partial(target.copy_, source)], rounds=9, device=device)
    return 2 * source.nbytes / statistics.median(times[0])


def time_candidates(
    candidates: Sequence[Candidate], rounds: int, device: torch.device
) -> list[dict]:
    """Time candidates, forward and forward with backward; rows for the result file."""
    rows = []
    for direction in ('forward', 'forward_backward'):
        runs = [getattr(candidate, direction) for candidate in candidates]
        memory = [peak_memory(run, device) for run in runs]
        times, how = measure(runs, rounds, device)
        baseline = statistics.median(times[0])  # bilinear comes first
        for candidate, seconds, peak, way in zip(candidates, times, memory, how, strict=True):
            rows.append(
                dict(
                    candidate=candidate.name,
                    direction=direction,
                    **median_and_quartiles(seconds),
                    to_bilinear=statistics.median(seconds) / baseline,
                    peak_mib=peak,
                    timed=way,
                )
            )
    return rows


def share_of_ceiling(row: dict, shapes: Shapes, dtype: torch.dtype, ceiling: float) -> float | None:
    """Bandwidth of reading the features and writing the results once, over that of a copy.

    None with a backward pass, which reads and writes more.
    """
    if row['direction'] != 'forward':
        return None
    pixels = sum(n * h * w for n, h, w in shapes)
    least = pixels * CHANNELS * (1 + SCALE**2) * dtype.itemsize
    return least / (row['median_ms'] / 1e3) / ceiling


def run_preset(
    preset: dict[str, Sequence], device: torch.device, rounds: int
) -> tuple[float, list[dict]]:
    """Measure everything that a preset names.

    Returns:
        tuple: The ceiling in GB/s, and one row per candidate, workload, dtype, memory format,
        number of threads and direction. ``of_ceiling`` is that of :func:`share_of_ceiling`.
    """
    for dtype in preset['dtypes']:
        check(device, getattr(torch, dtype))
    ceiling = copy_bandwidth(device, 2**28 if device.type == 'cuda' else 2**25)
    makers = {'sampling': sampling_candidates, 'upsamplers': upsampler_candidates}
    cases = [
        (kind, workload, dtype, layout, threads)
        for kind in makers
        for workload in preset[kind]
        for dtype in preset['dtypes']
        for layout in FORMATS
        if not (kind == 'upsamplers' and (layout != 'nchw' or dtype != preset['dtypes'][0]))
        for threads in preset.get('threads', (torch.get_num_threads(),))
    ]
    rows, threads_before = [], torch.get_num_threads()
    for kind, workload, dtype, layout, threads in progress(cases):
        torch.set_num_threads(threads)
        arguments = WORKLOADS[workload], getattr(torch, dtype), FORMATS[layout], device
        case = dict(
            kind=kind, workload=workload, dtype=dtype, memory_format=layout, threads=threads
        )
        for row in time_candidates(list(makers[kind](*arguments)), rounds, device):
            share = share_of_ceiling(row, *arguments[:2], ceiling)
            rows.append({**case, **row} | (dict(of_ceiling=share) if share is not None else {}))
        torch.compiler.reset()
    torch.set_num_threads(threads_before)
    return ceiling / 1e9, rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; print the tables; write them, the JSON behind them and a plot where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    cuda = torch.cuda.is_available()
    parser.add_argument('--preset', choices=PRESETS, default='gpu' if cuda else 'cpu')
    parser.add_argument('--rounds', type=int, default=50 if cuda else 7, help='runs of each')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='JSON to write, and its tables as .md beside it')
    parser.add_argument('--plot', type=Path, help='figure to write: accuracy against latency')
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    device = torch.device('cuda' if options.preset == 'gpu' else 'cpu')
    ceiling, rows = run_preset(PRESETS[options.preset], device, options.rounds)
    result = dict(
        **provenance(),
        device=device_name(device),
        seed=options.seed,
        rounds=options.rounds,
        ceiling_gb_per_s=ceiling,
        rows=rows,
        memory=[
            row
            for workload in PRESETS[options.preset].get('memory', ())
            for row in peak_of_training_steps(WORKLOADS[workload], workload)
        ],
    )
    from mmdysample.costs.latency_report import plot, to_markdown

    print(to_markdown(result))
    if options.out:
        save(result, to_markdown(result), options.out)
    if options.plot:
        plot(result, options.plot)


def _features(
    shapes: Shapes, dtype: torch.dtype, memory_format: torch.memory_format, device: torch.device
) -> Iterator[Tensor]:
    for n, h, w in shapes:
        x = torch.randn(n, CHANNELS, h, w, device=device, dtype=dtype)
        yield x.to(memory_format=memory_format).requires_grad_()
