"""What a job keeps, goes on with, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.job import Job, Stopped, load_row_config, read_scalars, training_seconds

pytestmark = pytest.mark.smoke
SLEEP = 'import time; time.sleep(120)'
TIMEOUT = 60  # seconds that nothing here comes near


def test_a_finished_job_is_kept(make_job):
    job = make_job()
    result = job.run()
    assert job.calls == ['train.py', 'test.py'] and job.finished()
    assert result.metrics == dict(ap=25.0)
    record = result.record
    assert record['scalars'] == [dict(step=10, time=0.5, loss=1.0)]
    assert record['training_seconds'] == 5.0 and record['interruptions'] == 0
    assert (job.folder / record['checkpoint']).read_text() == 'weights'
    assert (job.folder / record['config_dump']).is_file()
    assert {'device', 'versions', 'revision', 'commands', 'finished'} <= record.keys()

    again = make_job(train='raise SystemExit(1)')
    assert again.run().metrics == dict(ap=25.0)
    assert again.calls == []


def test_a_failed_job_says_why_and_is_tried_again(make_job):
    job = make_job(train="print('no more memory'); raise SystemExit(3)")
    with pytest.raises(UsageError, match=r'(?s)seed 0: exit status 3; .*train\.log.*no more mem'):
        job.run()
    failure = json.loads((job.folder / 'failure.json').read_text())
    assert 'no more memory' in failure['error'] and not job.finished()

    result = make_job().run()
    assert result.record['interruptions'] == 1
    assert not (job.folder / 'failure.json').exists()


def test_a_job_killed_in_the_test_does_not_train_again(make_job):
    with pytest.raises(UsageError, match='killed by SIGKILL'):
        make_job(test='import os; os.kill(os.getpid(), 9)').run()
    assert make_job(train='raise SystemExit(1)').run().metrics == dict(ap=25.0)


def test_a_log_that_a_kill_cut_off_does_not_spoil_the_result(make_job):
    with pytest.raises(UsageError):
        make_job(train='raise SystemExit(1)').run()
    job = make_job()
    earlier = job.folder / 'train' / '20250101_000000' / 'vis_data'
    earlier.mkdir(parents=True)
    (earlier / 'scalars.json').write_text('{"step": 5, "time": 1.0, "loss": 2.0}\n{"step": 1')
    assert [row['step'] for row in job.run().record['scalars']] == [5, 10]


def test_a_log_damaged_elsewhere_is_named(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(UsageError, match=r'scalars\.json, line 1 is damaged'):
        read_scalars(path)


def test_results_of_other_settings_are_not_touched(make_job):
    kept = make_job().run().folder / 'result.json'
    before = kept.read_bytes()
    other = make_job(overrides=('train_cfg.max_epochs=2',))
    with pytest.raises(UsageError, match='holds the work of another config, overrides; results'):
        other.run()
    assert other.calls == [] and kept.read_bytes() == before


def test_two_runs_do_not_share_a_folder(make_job):
    job = make_job(train=SLEEP)
    ends: list[type] = []

    def work() -> None:
        try:
            job.run()
        except Stopped:
            ends.append(Stopped)

    worker = threading.Thread(target=work)
    worker.start()
    while not (job.folder / 'train.log').exists():
        time.sleep(0.05)
    with pytest.raises(UsageError, match='is being run by another process'):
        make_job().run()
    job.stop.set()
    worker.join(TIMEOUT)
    assert ends == [Stopped]
    assert not (job.folder / 'failure.json').exists()  # asked to stop is no failure


def test_a_test_without_the_metric_is_a_failure(make_job):
    silent = make_job(test="print('nothing')")
    with pytest.raises(UsageError, match='the test left no result'):
        silent.run()
    assert not silent.finished()


def test_a_training_dies_with_the_run_that_started_it(make_job, tmp_path):
    """As after kill -9, so that no forgotten training writes beside the next one."""
    script = f"""
import os, sys, time
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from conftest import StandIn
from mmdysample.reproduce.job import Settings
from mmdysample.reproduce.tables import load_tables
table = load_tables('demo')['faster_rcnn']
folder = __import__('pathlib').Path({str(tmp_path / 'run')!r})
job = StandIn(table, table.rows['nearest'], 0, folder, Settings(folder), print)
child = 'import os, time; print("pid", os.getpid(), flush=True); time.sleep(120)'
job.scripts, job.calls = {{'train.py': child}}, []
job.run()
"""
    process = subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.DEVNULL)
    log = tmp_path / 'run' / 'train.log'
    while 'pid' not in (log.read_text() if log.exists() else ''):
        assert process.poll() is None
        time.sleep(0.1)
    pid = int(log.read_text().split()[1])
    process.send_signal(signal.SIGKILL)
    process.wait(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while _alive(pid):
        assert time.monotonic() < deadline, 'the training outlived its run'
        time.sleep(0.1)
    with pytest.raises(UsageError, match='exit status 5'):  # the lock went with them
        job = make_job(train='raise SystemExit(5)')
        job.folder = tmp_path / 'run'
        (job.folder / 'begun.json').unlink()
        job.run()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    return state != 'Z'


@pytest.mark.parametrize(
    ('launcher', 'processes', 'beginning', 'ending'),
    [
        ('none', 1, [sys.executable], 'seed'),
        (
            'pytorch',
            4,
            [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=4'],
            'pytorch',
        ),
        (
            'slurm',
            64,
            ['srun', '--ntasks=64', '--ntasks-per-node=8', '--kill-on-bad-exit=1', sys.executable],
            'slurm',
        ),
    ],
)
def test_launchers(make_job, launcher, processes, beginning, ending):
    job = make_job(launcher=launcher, processes=processes)
    command = Job._command(job, 'train.py', job.row.config, '--seed')
    assert command[: len(beginning)] == beginning
    assert command[-1].endswith(ending)
    assert next(word for word in command if word.endswith('.py')).endswith('tools/train.py')


def test_overrides_are_read_as_the_tools_read_them(make_job):
    row = make_job().row
    cfg = load_row_config(row, ['train_cfg.max_epochs=7', 'optim_wrapper.optimizer.lr=1e-4'])
    assert cfg.train_cfg.max_epochs == 7 and cfg.optim_wrapper.optimizer.lr == 1e-4
    with pytest.raises(UsageError, match="takes KEY=VALUE, got 'max_epochs'"):
        load_row_config(row, ['max_epochs'])


@pytest.mark.parametrize(
    ('logged', 'seconds'),
    [
        ([(10, 2.0), (20, 1.0)], 30.0),
        # Stopped after step 20, resumed from a checkpoint at step 10.
        ([(10, 2.0), (20, 9.0), (20, 1.0), (30, 1.0)], 40.0),
        ([], 0.0),
    ],
)
def test_training_time_counts_every_step_once(logged, seconds):
    scalars = [dict(step=step, time=each, loss=1.0) for step, each in logged]
    scalars.insert(1, dict(step=1, time=99.0))  # a validation
    assert training_seconds(scalars) == seconds
