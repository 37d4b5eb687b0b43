"""Checks of the kernels against PyTorch's operators in float64, as rows of a report."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmdysample.costs.candidates import FORMATS
from mmdysample.ops import dysample, reassemble, window_similarity

TOLERANCE = 64
"""Allowed error in units of the compared dtype's epsilon, times the largest exact value."""

LARGE_BYTES = 40 * 2**30
"""Free memory that the comparison beyond 2**31 elements needs."""


def compare(
    operator: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    backend: str,
    **options: Any,
) -> float:
    """Compare result and gradients of a backend with PyTorch's operators in float64.

    Args:
        operator (Callable): ``operator(*tensors, backend=..., **options)``.
        tensors (Sequence[Tensor]): Its differentiable arguments.
        backend (str): What is compared.
        **options: Further arguments.

    Returns:
        float: The largest error, in units of epsilon of the tensor's dtype times its largest
        exact value or 1; infinite where a shape or dtype is another.
    """
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    doubles = [tensor.detach().double().requires_grad_() for tensor in tensors]
    out = operator(*leaves, backend=backend, **options)
    exact = operator(*doubles, backend='torch', **options)
    if out.shape != exact.shape:
        return float('inf')
    weight = torch.randn_like(out)
    gradients = torch.autograd.grad(out, leaves, weight)
    expected = torch.autograd.grad(exact, doubles, weight.double())
    pairs = zip((out, *gradients), (exact, *expected), strict=True)
    return max((_error(actual, wanted) for actual, wanted in pairs), default=0.0)


def _error(actual: Tensor, exact: Tensor) -> float:
    if not exact.numel():
        return 0.0
    unit = torch.finfo(actual.dtype).eps * max(1.0, exact.abs().max().item())
    error = (actual.double() - exact).abs().max().item() / unit
    return error if error == error else float('inf')


def sampling_case(
    rng: random.Random, dtype: torch.dtype, device: torch.device, side: int
) -> tuple[dict[str, Any], list[Tensor]]:
    """Draw options and arguments of :func:`mmdysample.ops.dysample`.

    Offsets are odd multiples of 1/32, so that no position with a static scope meets a pixel centre
    or the border, where the derivative jumps and rounding decides on its side.
    """
    groups, scale = rng.choice([1, 2, 4]), rng.choice([2, 2, 3, 4])
    style, layout = rng.choice(['lp', 'pl']), rng.choice(list(FORMATS))
    n, height, width = rng.choice([0, 1, 2, 2]), rng.randint(1, side), rng.randint(1, side)
    channels = groups * rng.randint(1, side)
    size = (scale * height - rng.randrange(scale), scale * width - rng.randrange(scale))
    fine = (n, 2 * groups, scale * height, scale * width)
    shape = fine if style == 'pl' else (n, 2 * groups * scale**2, height, width)
    x = torch.randn(n, channels, height, width, device=device).to(dtype)
    offset = (torch.randint(-40, 40, shape, device=device) * 2 + 1) / 32
    tensors = [x.to(memory_format=FORMATS[layout]), offset]
    if rng.random() < 0.5:
        tensors.append(torch.randn(shape, device=device))
    init = rng.choice(['bilinear', 'nearest'])
    options = dict(scale_factor=scale, groups=groups, style=style, init=init, size=size)
    return options, tensors


def reassembly_case(
    rng: random.Random, dtype: torch.dtype, device: torch.device, side: int, similarity: bool
) -> tuple[dict[str, Any], list[Tensor]]:
    """Draw options and arguments of ``reassemble`` or ``window_similarity``."""
    groups, scale, window = rng.choice([1, 2]), rng.choice([2, 2, 3]), rng.choice([1, 3, 5])
    layout, n = rng.choice(list(FORMATS)), rng.choice([0, 1, 2])
    height, width = rng.randint(1, side), rng.randint(1, side)
    channels = groups * rng.randint(1, side)
    fine = (scale * height, scale * width)
    coarse = torch.randn(n, channels, height, width, device=device).to(dtype)
    coarse = coarse.to(memory_format=FORMATS[layout])
    other = channels if similarity else groups * window**2
    tensors = [coarse, torch.randn(n, other, *fine, device=device).to(dtype)]
    options = dict(kernel_size=window, groups=groups, scale_factor=scale)
    return options, tensors[::-1] if similarity else tensors


def random_checks(
    backend: str,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    cases: int,
    side: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Compare every operator with float64 on random cases.

    Args:
        backend (str): What is compared.
        device (torch.device): Where it runs.
        dtypes (Sequence[torch.dtype]): Of the features.
        cases (int): Random cases per dtype and operator.
        side (int): Largest height and width of a feature, and most channels of a group.
        seed (int): Of the options; the values follow PyTorch's own seed.

    Yields:
        dict: One row per case.
    """
    rng = random.Random(seed)
    makers = {
        dysample: sampling_case,
        reassemble: partial(reassembly_case, similarity=False),
        window_similarity: partial(reassembly_case, similarity=True),
    }
    for operator, make in makers.items():
        for dtype in dtypes:
            for _ in range(cases):
                options, tensors = make(rng, dtype, device, side)
                case = f'{dtype}, {[tuple(t.shape) for t in tensors]}, {options}'
                run = partial(compare, operator, tensors, backend, **options)
                yield _row(operator.__name__, case, run)


def _row(check: str, case: str, run: Callable[[], float]) -> dict[str, Any]:
    """Run one check; whatever it raises is its result."""
    try:
        error = run()
    except Exception as reason:  # a kernel that does not compile must not hide the others
        return dict(check=check, case=case, error=None, passed=False, reason=repr(reason)[:500])
    return dict(check=check, case=case, error=error, passed=error <= TOLERANCE)


def feature_checks(device: torch.device, backend: str) -> Iterator[dict[str, Any]]:
    """Check determinism, and on a GPU captured graphs, compiling and large maps."""
    shape = (2, 64, 20, 30) if device.type == 'cuda' else (1, 8, 3, 4)
    x = torch.randn(shape, device=device)
    offset = torch.randn(shape[0], 32, *shape[2:], device=device)
    sample = partial(dysample, groups=4, backend=backend)

    def gradients(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_(), offset.detach().requires_grad_()]
        out = function(*leaves)
        return (out.detach(), *torch.autograd.grad(out.square().sum(), leaves))

    def deterministic() -> float:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            pairs = zip(gradients(sample), gradients(sample), strict=True)
            return 0.0 if all(torch.equal(a, b) for a, b in pairs) else float('inf')
        finally:
            torch.use_deterministic_algorithms(before)

    def captured() -> float:
        expected = sample(x, offset)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.no_grad():
            out = sample(x, offset)
        out.zero_()
        graph.replay()
        torch.cuda.synchronize()
        return 0.0 if torch.equal(out, expected) else float('inf')

    def compiled() -> float:
        pairs = zip(
            gradients(torch.compile(sample, fullgraph=True)), gradients(sample), strict=True
        )
        return max(_error(a, b.double()) for a, b in pairs)

    yield _row('deterministic', 'two backward passes are bit-equal', deterministic)
    if device.type != 'cuda':
        return
    yield _row('graph', 'a captured CUDA graph replays', captured)
    yield _row('compile', 'torch.compile, one graph, forward and backward', compiled)
    if torch.cuda.mem_get_info()[0] > LARGE_BYTES:
        yield _row(
            'large', 'a result of more than 2**31 elements', partial(_large, device, backend)
        )


def _large(device: torch.device, backend: str) -> float:
    """Compare the last rows of a huge map with the same rows computed alone."""
    with torch.no_grad():
        x = torch.randn(1, 256, 1500, 1500, device=device, dtype=torch.bfloat16)
        offset = torch.rand(1, 32, 1500, 1500, device=device) - 0.5
        tail = dysample(x, offset, groups=4, backend=backend)[:, :, -40:].clone()
        alone = dysample(
            x[:, :, -40:].double(), offset[:, :, -40:].double(), groups=4, backend='torch'
        )
    return _error(tail, alone[:, :, -40:])
