"""A stopwatch for functions in turn, on the CPU and on GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch


def measure(
    runs: Sequence[Callable[[], Any]], rounds: int, device: torch.device, graphs: bool = True
) -> tuple[list[list[float]], list[str]]:
    """Time functions in turn, so that whatever disturbs the machine disturbs all of them.

    On a GPU each function is captured as a graph and its replay timed by events, which leaves the
    time that Python takes to launch kernels out; where that fails, the plain call is timed.

    Args:
        runs (Sequence[Callable]): The functions.
        rounds (int): Timed runs of each; one more comes before to warm up.
        device (torch.device): Where they run.
        graphs (bool): Capture graphs on a GPU. Defaults to True.

    Returns:
        tuple: Seconds of every run of every function, and how each was timed.
    """
    prepared = [_prepare(run, graphs and device.type == 'cuda') for run in runs]
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for (run, _), record in zip(prepared, times, strict=True):
            record.append(_time(run, device))
    return times, [how for _, how in prepared]


def _prepare(run: Callable[[], Any], graph: bool) -> tuple[Callable[[], Any], str]:
    run()
    if not graph:
        return run, 'call'
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(captured):
            run()
    except RuntimeError:  # it waits for the CPU or copies from it, which no graph can
        torch.cuda.synchronize()
        return run, 'call'
    return captured.replay, 'graph'


def _time(run: Callable[[], Any], device: torch.device) -> float:
    if device.type != 'cuda':
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def peak_memory(run: Callable[[], Any], device: torch.device) -> float | None:
    """Measure the MiB that a run needs beside its arguments at its worst; None on the CPU."""
    if device.type != 'cuda':
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def median_and_quartiles(seconds: Sequence[float]) -> dict[str, Any]:
    """Give median and quartiles in milliseconds, as result files have them."""
    milliseconds = 1e3 * torch.tensor(seconds, dtype=torch.float64)
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, median, high = milliseconds.quantile(quartiles).tolist()
    return dict(median_ms=median, quartiles_ms=[low, high])


def progress(items: list) -> Iterator:
    """Go through the items behind a progress bar, if there is tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return iter(items)
    return tqdm(items, unit='case')
