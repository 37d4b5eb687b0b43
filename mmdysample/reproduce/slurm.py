"""A whole table on a cluster: one Slurm array job, a task for every row and seed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdysample.engine.launch import project_root
from mmdysample.reproduce.job import Job

GPUS_PER_NODE = 8
CPUS_PER_GPU = 8

_SCRIPT = """\
#!/usr/bin/env bash
# {count} trainings, each on {gpus} GPU(s), written by tools/reproduce.py. Submit it with
#     sbatch {path}
# and again after a time limit or a failure: finished rows are kept, others go on from their
# last checkpoint. Add your cluster's partition, account and time to the lines below, or to sbatch.
#SBATCH --job-name=mmdysample
#SBATCH --array=0-{last}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={per_node}
#SBATCH --gpus-per-node={per_node}
#SBATCH --cpus-per-task={cpus}
#SBATCH --output={logs}/%A_%a.out
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail
cd {root}

tasks=(
{tasks}
)
read -r table row seed <<<"${{tasks[$SLURM_ARRAY_TASK_ID]}}"
exec {command} "$table" --rows "$row" --seed "$seed" {options}
"""


def write_array_script(jobs: Sequence[Job], options: Sequence[str], path: Path) -> Path:
    """Write a script for ``sbatch`` that runs every job as one task of an array.

    Args:
        jobs (Sequence[Job]): What to run; they share their settings.
        options (Sequence[str]): Options of ``tools/reproduce.py run`` that every task gets.
        path (Path): The script.

    Returns:
        Path: The script.
    """
    gpus = jobs[0].settings.processes
    per_node = min(gpus, GPUS_PER_NODE)
    logs = path.parent / 'slurm'
    logs.mkdir(parents=True, exist_ok=True)
    tasks = (f"    '{job.table.name} {job.row.name} {job.seed}'" for job in jobs)
    command = [sys.executable, str(project_root() / 'tools' / 'reproduce.py'), 'run']
    path.write_text(
        _SCRIPT.format(
            count=len(jobs),
            gpus=gpus,
            path=path,
            last=len(jobs) - 1,
            nodes=-(-gpus // GPUS_PER_NODE),
            per_node=per_node,
            cpus=CPUS_PER_GPU,
            logs=logs.resolve(),
            root=shlex.quote(str(Path.cwd())),
            tasks='\n'.join(tasks),
            command=shlex.join(command),
            options=shlex.join(options),
        )
    )
    path.chmod(0o755)
    return path
