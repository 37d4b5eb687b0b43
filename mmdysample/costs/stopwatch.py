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
    low, median, high = (1e3 * value for value in quartiles(seconds))
    return dict(median_ms=median, quartiles_ms=[low, high])


def speeds(times: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Compare the speed of functions with the first one's, round by round.

    What disturbs a machine for seconds disturbs all runs of a round alike, so the median of the
    ratios varies less than the ratio of the medians.

    Args:
        times (Sequence): Seconds of every run of every function, as :func:`measure` gives them.

    Returns:
        list[dict]: Of each function ``to_baseline``, the median of how many times faster it was,
        and ``quartiles_to_baseline``.
    """
    found = []
    for seconds in times:
        ratios = [stock / own for stock, own in zip(times[0], seconds, strict=True)]
        low, median, high = quartiles(ratios)
        found.append(dict(to_baseline=median, quartiles_to_baseline=[low, high]))
    return found


def quartiles(values: Sequence[float]) -> list[float]:
    """Give the lower quartile, the median and the upper quartile."""
    points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return torch.tensor(values, dtype=torch.float64).quantile(points).tolist()


def progress(items: list) -> Iterator:
    """Go through the items behind a progress bar, if there is tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return iter(items)
    return tqdm(items, unit='case')
