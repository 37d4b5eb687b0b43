"""All jobs of a run, as many at a time as there is room for; one that fails stops no other."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.job import Job, Stopped


def devices_for(count: int, gpus_each: int) -> list[str | None]:
    """Share out this machine's GPUs.

    Args:
        count (int): Jobs at a time.
        gpus_each (int): GPUs of each job; 0 for none.

    Returns:
        list[str | None]: ``CUDA_VISIBLE_DEVICES`` of each place; None leaves it as it is.

    Raises:
        UsageError: If there are not so many GPUs.
    """
    if not gpus_each:
        return [None] * count
    import torch

    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    names = visible.split(',') if visible else [str(i) for i in range(torch.cuda.device_count())]
    if count * gpus_each > len(names):
        raise UsageError(
            f'{count} job(s) of {gpus_each} GPU(s) need {count * gpus_each}, but this machine '
            f'shows {len(names)}; lower --gpus or --jobs'
        )
    return [','.join(names[i * gpus_each : (i + 1) * gpus_each]) for i in range(count)]


def run_all(
    jobs: Sequence[Job], places: Sequence[str | None], say: Callable[[str], None]
) -> dict[str, str]:
    """Run jobs in the order given, one at each place at a time.

    Args:
        jobs (Sequence[Job]): What to run.
        places (Sequence[str | None]): ``CUDA_VISIBLE_DEVICES`` of each place.
        say (Callable): Takes a line of progress.

    Returns:
        dict[str, str]: What went wrong, by the name of the job; empty if nothing did.

    Raises:
        KeyboardInterrupt: If the run was interrupted or terminated. What it had started is ended
            first, so that the next call goes on from the last checkpoints.
    """
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for place in places:
        free.put(place)
    failures: dict[str, str] = {}
    stop = threading.Event()
    left = {job.name for job in jobs if not job.finished()}
    start, done, begun = time.monotonic(), 0, len(left)

    def work(job: Job) -> None:
        job.stop = stop
        if stop.is_set():
            raise Stopped(job.name)
        place = free.get()
        try:
            job.run(place)
        finally:
            free.put(place)

    with _terminate_as_interrupt(), ThreadPoolExecutor(len(places)) as pool:
        waiting = {pool.submit(work, job): job for job in jobs}
        try:
            while waiting:
                finished, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                for future in finished:
                    job = waiting.pop(future)
                    done += 1
                    error = future.exception()
                    if error is None and job.name not in left:
                        job.say(f'kept; {done} of {len(jobs)}')
                        continue
                    left.discard(job.name)
                    if error is None:
                        minutes = (time.monotonic() - start) / 60
                        minutes *= len(left) / (begun - len(left))
                        job.say(f'finished; {done} of {len(jobs)}, about {minutes:.0f} min left')
                    elif isinstance(error, Exception):
                        known = isinstance(error, UsageError)
                        failures[job.name] = str(error) if known else repr(error)
                        say(f'FAILED {error if known else f"{job.name}: {error!r}"}')
                    else:
                        raise error
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failures


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let a polite kill, as batch systems send it, end the run in an orderly way."""

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
