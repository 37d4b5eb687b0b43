"""Peak memory of a training step of DySample's sampling on the CPU, measured by the kernel.

PyTorch's profiler does not see what others allocate, so the resident memory of a fresh process
counts. ``getrusage`` would not do: after a fork its maximum begins at that of the parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from mmdysample.costs.candidates import FORMATS, GROUPS, SCALE, sampling_candidates
from mmdysample.ops.backend import can_run_native


def peak_of_training_steps(
    shapes: Sequence[tuple[int, int, int]], workload: str
) -> Iterator[dict[str, str | float]]:
    """Measure every way of sampling and every memory format, each in a process of its own.

    Args:
        shapes (Sequence): Batch, height and width of the features that are upsampled in turn.
        workload (str): What to call them in the rows.

    Yields:
        dict: ``peak_mib``, by how much a step raises the resident memory, and ``tensors_mib``, the
        size of x, offsets, result and their gradients. Nothing where the system is not Linux.
    """
    if not Path('/proc/self/clear_refs').exists():
        return
    names = ['bilinear', 'published', 'dysample (torch)']
    if can_run_native(torch.empty(1, GROUPS, 1, 1)):
        names.append('dysample (native)')
    for layout in FORMATS:
        for name in names:
            # Spawned, as what a fork copies would count until it is written.
            with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as executor:
                peak, tensors = executor.submit(step_memory, name, layout, shapes).result()
            yield dict(
                workload=workload,
                memory_format=layout,
                name=name,
                peak_mib=peak / 2**20,
                tensors_mib=tensors / 2**20,
            )


def step_memory(name: str, layout: str, shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """Measure how many bytes a step adds to the resident memory of this process at its worst.

    Args:
        name (str): How to sample.
        layout (str): Key of ``FORMATS``.
        shapes (Sequence): Batch, height and width of the features; the largest sum counts.

    Returns:
        tuple[int, int]: The peak, and the size of the tensors of the step.
    """
    torch.set_num_threads(1)
    _step(name, layout, (1, 3, 5))  # loads what is loaded at the first use
    results = []
    for shape in shapes:
        before = _status('VmRSS')
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts from here
        tensors = _step(name, layout, shape)
        results.append((_status('VmHWM') - before, tensors))
    return max(results)


def _step(name: str, layout: str, shape: tuple[int, int, int]) -> int:
    """Sample and differentiate; return the size of all tensors that such a step's caller holds."""
    made = sampling_candidates((shape,), torch.float32, FORMATS[layout], torch.device('cpu'))
    candidate = next(candidate for candidate in made if candidate.name == name)
    candidate.forward_backward()
    ((_, inputs),) = candidate.steps
    return 2 * (sum(t.nbytes for t in inputs) + SCALE**2 * inputs[0].nbytes)


def _status(key: str) -> int:
    """Read a line of this process's status, in bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(key))
    return 1024 * int(line.split()[1])
