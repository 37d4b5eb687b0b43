"""Jobs side by side: failures stay with their row, an interruption ends all of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from mmdysample.engine.errors import UsageError
from mmdysample.engine.processes import devices_for
from mmdysample.reproduce import run
from mmdysample.reproduce.job import Job
from mmdysample.reproduce.results import find_runs
from mmdysample.reproduce.run import Task, run_all, submit


def test_a_failed_row_stops_no_other(make_job):
    jobs = [
        make_job('nearest'),
        make_job('carafe', train='raise SystemExit(1)'),
        make_job('dysample', test="print('nothing')"),
        make_job('dysample_s_plus'),
    ]
    lines = []
    failures = run_all(jobs, ['', ''], lines.append)
    assert list(failures) == ['faster_rcnn/carafe seed 0', 'faster_rcnn/dysample seed 0']
    assert [job.finished() for job in jobs] == [True, False, False, True]
    assert [line.split()[0] for line in lines] == ['FAILED', 'FAILED']
    states = {run.row: run.state for run in find_runs(jobs[0].work_dir, jobs[0].table)}
    assert states == dict(
        nearest='finished', carafe='failed', dysample='failed', dysample_s_plus='finished'
    )


def test_an_unwritable_folder_stops_no_other_row(make_job):
    jobs, lines = [make_job('nearest'), make_job('carafe')], []
    jobs[0].folder.parent.parent.mkdir(parents=True)
    jobs[0].folder.parent.write_text('a file where a folder should be')
    failures = run_all(jobs, [''], lines.append)
    assert list(failures) == ['faster_rcnn/nearest seed 0']
    assert jobs[1].finished() and 'NotADirectoryError' in lines[0]


def test_what_was_finished_before_is_kept_and_counts_for_no_time(make_job):
    make_job('nearest').run()
    jobs, lines = [make_job('nearest'), make_job('carafe')], []
    assert run_all(jobs, [''], lines.append) == {}
    assert jobs[0].lines == ['kept; 1 of 2'] and jobs[0].calls == []
    assert jobs[1].lines[-1] == 'finished; 2 of 2, about 0 min left'


def test_each_job_has_devices_of_its_own(make_job, tmp_path):
    note = (
        'import os, sys, time\n'
        f'open({str(tmp_path / "log")!r}, "a").write("+" + os.environ["CUDA_VISIBLE_DEVICES"])\n'
        'time.sleep(0.3)\n'
        f'open({str(tmp_path / "log")!r}, "a").write("-" + os.environ["CUDA_VISIBLE_DEVICES"])\n'
        'raise SystemExit(1)'
    )
    jobs = [make_job(seed=seed, train=note, gpus=1) for seed in range(5)]
    run_all(jobs, ['3', '5'], lambda line: None)
    log = (tmp_path / 'log').read_text()
    for device in '35':
        marks = [log[i] for i in range(0, len(log), 2) if log[i + 1] == device]
        assert marks == ['+', '-'] * (len(marks) // 2) and marks


def test_an_interruption_ends_what_was_started(make_job):
    """The training writes down that it was asked to end: nobody waits until it ends by itself."""
    train = """
import signal, sys, time
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1]).parent
def end(*_):
    (folder / 'asked').touch()
    raise SystemExit(1)
signal.signal(signal.SIGTERM, end)
(folder / 'ready').touch()
time.sleep(30)
"""
    jobs = [make_job(seed=seed, train=train) for seed in range(3)]

    def interrupt() -> None:
        while not (jobs[0].folder / 'ready').exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_all(jobs, [''], lambda line: None)
    assert (jobs[0].folder / 'asked').exists()
    assert not (jobs[0].folder / 'failure.json').exists()
    assert not jobs[1].folder.exists() and not jobs[2].folder.exists()


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,4,6,7')
    assert devices_for(2, 2) == ['2,4', '6,7']
    assert devices_for(3, 0) == [''] * 3
    with pytest.raises(UsageError, match=r'3 job\(s\) of 2 GPU\(s\) need 6, .* shows 4'):
        devices_for(3, 2)


# Slurm --------------------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A folder of commands that stand for Slurm's; what was submitted is in ``submitted.sh``."""
    pytest.importorskip('submitit')
    folder = tmp_path / 'bin'
    folder.mkdir()
    commands = dict(
        srun='exit 0', sbatch=f'cp "$1" {folder}/submitted.sh; echo Submitted batch job 42'
    )
    for name, text in commands.items():
        (folder / name).write_text(f'#!/bin/sh\n{text}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    return folder


def test_an_array_has_a_task_for_each_training(make_job, slurm, tmp_path):
    from submitit.core.utils import DelayedSubmission

    quick = ('train_cfg.max_epochs=1',)
    jobs = [
        make_job(row, seed, overrides=quick).plain(gpus=16, torchrun=True)
        for row in ('nearest', 'carafe')
        for seed in (0, 1)
    ]
    numbers = submit(jobs, tmp_path / 'slurm', dict(partition='gpu', time='60'))
    assert numbers == ['42_0', '42_1', '42_2', '42_3']
    lines = (slurm / 'submitted.sh').read_text().splitlines()
    for line in ('nodes=2', 'ntasks-per-node=1', 'gpus-per-node=8', 'time=60'):
        assert f'#SBATCH --{line}' in lines
    assert '#SBATCH --partition=gpu' in lines
    assert any(line.startswith('#SBATCH --array=0-3') for line in lines)
    assert any(line.startswith('#SBATCH --signal=USR2') for line in lines)
    tasks = [
        DelayedSubmission.load(path).function
        for path in sorted((tmp_path / 'slurm').glob('*_submitted.pkl'))
    ]
    assert {task.job.name for task in tasks} == {job.name for job in jobs}
    assert all(task.job.overrides == quick for task in tasks)
    assert tasks[0].checkpoint().function is tasks[0]  # queued again as it was


def test_without_slurm_nothing_is_submitted(make_job, tmp_path, monkeypatch):
    pytest.importorskip('submitit')
    monkeypatch.setenv('PATH', str(Path(sys.executable).parent))
    with pytest.raises(UsageError, match=r'--submit: Slurm did not take the jobs: .*srun'):
        submit([make_job().plain(gpus=1)], tmp_path / 'slurm', {})


def test_tasks_that_share_a_node_meet_at_different_ports(make_job, slurm, monkeypatch):
    seen, measured = [], []
    monkeypatch.setattr(Job, 'run', lambda job, devices, node: seen.append((devices, node)))
    monkeypatch.setattr(run, 'measure_costs', lambda jobs, *_: measured.extend(jobs))
    common = dict(
        SUBMITIT_EXECUTOR='slurm',
        SLURM_JOB_NODELIST='n[4-5]',
        SLURM_JOB_NUM_NODES='2',
        SLURM_NTASKS='2',
        SLURM_LOCALID='0',
        SLURM_PROCID='1',
        SLURM_NODEID='1',
        SLURM_ARRAY_JOB_ID='42',
        CUDA_VISIBLE_DEVICES='0,1',
    )
    for task in '01':
        for key, value in (common | dict(SLURM_ARRAY_TASK_ID=task, SLURM_JOB_ID=task)).items():
            monkeypatch.setenv(key, value)
        Task(make_job().plain(gpus=16))()
    (devices, first), (_, second) = seen
    assert devices == '0,1'
    assert (first.rank, first.count, first.address) == (1, 2, 'n4')
    assert first.port != second.port
    assert not measured
    monkeypatch.setenv('SLURM_NODEID', '0')
    Task(make_job().plain(gpus=16))()
    assert [job.row.name for job in measured] == ['nearest']  # by the first machine alone
