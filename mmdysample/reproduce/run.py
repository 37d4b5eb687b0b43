"""All jobs of a run: on this machine, as many at a time as there is room for, or on a cluster."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mmdysample.engine.errors import UsageError
from mmdysample.engine.processes import Children, die_with_parent, terminate_as_interrupt
from mmdysample.reproduce.cost import config_digest, load_cost, measure_cost
from mmdysample.reproduce.job import Job, Node, load_row_config

GPUS_PER_NODE, CPUS_PER_GPU = 8, 8  # of a cluster
Say = Callable[[str], None]  # takes a line of progress


def run_all(jobs: Sequence[Job], devices: Sequence[str], say: Say) -> dict[str, str]:
    """Run jobs in the order given, each on one of the devices; a failure stops no other.

    submitit's local executor would not do: it starts all jobs at once, gives each of them the same
    first GPUs, and lets its processes survive the one that started them.

    Returns:
        dict[str, str]: What went wrong, by the name of the job; empty if nothing did.

    Raises:
        KeyboardInterrupt: If the run was interrupted or terminated. What it had started is ended
            first, so that the next call goes on from the last checkpoints.
    """
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for names in devices:
        free.put(names)
    failures: dict[str, str] = {}
    children = Children()
    left = {job.name for job in jobs if not job.finished()}
    start, begun = time.monotonic(), len(left)

    def work(job: Job) -> None:
        names = free.get()
        try:
            job.run(names, children)
        finally:
            free.put(names)

    with terminate_as_interrupt(), ThreadPoolExecutor(len(devices)) as pool:
        waiting = {pool.submit(work, job): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                job, error = waiting[future], future.exception()
                if error is None and job.name not in left:
                    job.say(f'kept; {done} of {len(jobs)}')
                    continue
                left.discard(job.name)
                minutes = (time.monotonic() - start) / 60 * len(left) / max(1, begun - len(left))
                if error is None:
                    job.say(f'finished; {done} of {len(jobs)}, about {minutes:.0f} min left')
                else:
                    known = isinstance(error, UsageError)
                    failures[job.name] = str(error) if known else repr(error)
                    say(f'FAILED {error if known else f"{job.name}: {error!r}"}')
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.end()
            raise
    return failures


def measure_costs(jobs: Sequence[Job], devices: str, say: Say) -> None:
    """Measure what the models of some jobs cost, one after the other, where that is not known yet.

    They are measured in one process beside this one, so that no memory of a GPU stays taken. A
    model that cannot be measured is told and keeps no other from being measured.
    """
    spawn = partial(ProcessPoolExecutor, 1, get_context('spawn'), _prepare, (devices,))
    pool = spawn()
    for job in {(job.table.name, job.row.name): job for job in jobs}.values():
        try:
            cfg = load_row_config(job.row, job.overrides)
            known = load_cost(job.work_dir, job.table, job.row.name)
            if known is None or known['config'] != config_digest(cfg):
                device = 'cuda:0' if job.gpus else 'cpu'
                arguments = job.table, job.row.name, cfg, job.work_dir, device
                pool.submit(measure_cost, *arguments).result()
        except Exception as error:  # whatever a model or its data may raise
            say(f'no cost of {job.table.name}/{job.row.name}: {error!r}')
            pool = spawn() if isinstance(error, BrokenExecutor) else pool  # its process died
    pool.shutdown()


def _prepare(devices: str) -> None:
    die_with_parent()
    os.environ['CUDA_VISIBLE_DEVICES'] = devices


def submit(jobs: Sequence[Job], folder: Path, options: dict[str, Any]) -> list[str]:
    """Submit jobs as one Slurm array, a task for each, by submitit; return the tasks' numbers.

    A task that reaches its time limit or is preempted is queued again and goes on from its last
    checkpoint. Scripts and logs go to ``folder``; ``options`` are those of submitit's executor,
    such as ``partition``. All jobs have as many GPUs.

    Raises:
        UsageError: If Slurm is not there, or does not take the jobs.
    """
    import submitit

    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=100)
        gpus = min(jobs[0].gpus, GPUS_PER_NODE)
        defaults = dict(
            job_name='mmdysample',
            time=24 * 60,
            nodes=max(1, jobs[0].gpus // GPUS_PER_NODE),
            ntasks_per_node=1,
            gpus_per_node=gpus or None,
            cpus_per_task=max(1, gpus) * CPUS_PER_GPU,
            srun_args=['--kill-on-bad-exit=1'],
            stderr_to_stdout=True,
        )
        executor.update_parameters(**defaults | options)
        with executor.batch():
            tasks = [executor.submit(Task(job)) for job in jobs]
    except (RuntimeError, ValueError, TypeError, submitit.core.utils.FailedJobError) as error:
        raise UsageError(f'--submit: Slurm did not take the jobs: {error}') from error
    return [task.job_id for task in tasks]


class Task:
    """A job as a task of a Slurm array; submitit calls it on each machine that shares the job."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> None:
        """Run the job on the GPUs that Slurm gave to this task; its model is measured first."""
        import submitit

        here = submitit.JobEnvironment()
        port = submitit.helpers.TorchDistributedEnvironment().master_port  # by the task's number
        node = Node(here.node, here.num_nodes, here.hostnames[0], port)
        devices = os.environ.get('CUDA_VISIBLE_DEVICES')
        if not node.rank and not self.job.finished():
            measure_costs([self.job], devices or '', self.job.say)
        self.job.run(devices, node=node)

    def checkpoint(self):
        """Let submitit queue the same task again: the work goes on from what is on the disk."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
