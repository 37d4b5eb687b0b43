"""What a job keeps, goes on with, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from platform import libc_ver

import pytest
from stand_in_tools import TEST, TRAIN

from mmdysample.engine import train
from mmdysample.engine.errors import UsageError
from mmdysample.engine.processes import Children, Stopped
from mmdysample.reproduce import job as job_module
from mmdysample.reproduce.job import (
    KEEP_MEMORY,
    Job,
    Node,
    RefusedError,
    load_row_config,
    read_scalars,
    training_seconds,
)
from mmdysample.reproduce.results import find_runs

pytestmark = pytest.mark.smoke
TIMEOUT = 60  # seconds that nothing here comes near


def result_of(job: Job) -> dict:
    return json.loads((job.folder / 'result.json').read_text())


def run_of(job: Job):
    """What the report would find."""
    return next(r for r in find_runs(job.work_dir, job.table) if r.row == job.row.name)


def test_a_finished_job_is_kept(make_job):
    job = make_job()
    job.run()
    assert job.calls == ['train.py', 'test.py', 'train.py', 'test.py']  # run, then written down
    record = result_of(job)
    assert record['metrics'] == dict(ap=25.0)
    assert record['scalars'] == [dict(step=10, time=0.5, loss=1.0)]
    assert record['training_seconds'] == 5.0
    assert (job.folder / record['checkpoint']).read_text() == 'weights'
    assert (job.folder / record['config_dump']).is_file()
    assert {'device', 'versions', 'revision', 'commands', 'finished'} <= record.keys()

    before = (job.folder / 'result.json').read_bytes()
    again = make_job(train='raise SystemExit(1)')
    again.run()
    assert again.calls == [] and (job.folder / 'result.json').read_bytes() == before


def test_a_result_is_never_replaced(make_job):
    """Not even by a training that somebody else finished meanwhile in the same folder."""
    test = TEST + "(folder.parents[1] / 'result.json').write_text('{}')\n"
    job = make_job(test=test)
    with pytest.raises(FileExistsError, match='results are never replaced'):
        job.run()
    assert result_of(job) == {}


def test_a_failed_job_says_why_and_is_tried_again(make_job):
    job = make_job(train="print('no more memory'); raise SystemExit(3)")
    with pytest.raises(UsageError, match=r'(?s)seed 0: exit status 3; .*train\.log.*no more mem'):
        job.run()
    assert run_of(job).state == 'failed' and 'no more memory' in run_of(job).error

    make_job().run()
    assert result_of(job)['metrics'] == dict(ap=25.0)
    assert not (job.folder / 'failure.json').exists()


NAN = TEST.replace('0.25', 'float("nan")')
BROKEN = TEST.replace('json.dumps({', "'{' + str({")
NO_CONFIG = TRAIN.replace('Path(sys.argv[1]).name', "'other.py'")
NO_CHECKPOINT = TRAIN.replace("'last_checkpoint'", "'first_checkpoint'")


@pytest.mark.parametrize(
    ('scripts', 'message'),
    [
        (dict(test="print('nothing')"), 'the test left no result'),
        (dict(test=NAN), 'reported none of coco/bbox_mAP'),
        (dict(test=BROKEN), 'JSONDecodeError'),
        (dict(train=NO_CONFIG), 'the training left no config'),
        (dict(train=NO_CHECKPOINT), 'the training left no checkpoint'),
        (dict(overrides=('nonsense',)), 'nonsense must be KEY=VALUE'),
    ],
)
def test_every_error_leaves_a_failure(make_job, scripts, message):
    job = make_job(**scripts)
    with pytest.raises((UsageError, ValueError)):
        job.run()
    assert run_of(job).state == 'failed' and message in run_of(job).error


def test_an_error_that_nobody_foresaw_leaves_a_failure(make_job, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError('by the moon')

    monkeypatch.setattr(job_module, 'images_per_update', fail)
    job = make_job()
    with pytest.raises(ZeroDivisionError):
        job.run()
    assert run_of(job).error == "ZeroDivisionError('by the moon')"


def test_other_python_files_and_other_metrics_do_no_harm(make_job):
    train = TRAIN + "(folder / 'copy_of_a_config.py').write_text('')\n"
    test = TEST.replace('0.25}', '0.25, "coco/bbox_mAP_s": float("nan")}')
    job = make_job(train=train, test=test)
    job.run()
    record = result_of(job)
    assert record['config_dump'] == f'train/{Path(job.row.config).name}'
    assert record['metrics'] == dict(ap=25.0)
    assert record['test'] == {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_s': None}


def test_a_job_killed_in_the_test_does_not_train_again(make_job):
    with pytest.raises(UsageError, match='killed by SIGKILL'):
        make_job(test='import os; os.kill(os.getpid(), 9)').run()
    job = make_job(train='raise SystemExit(1)')
    job.run()
    assert result_of(job)['metrics'] == dict(ap=25.0)


def test_a_log_that_a_kill_cut_off_does_not_spoil_the_result(make_job):
    job = make_job()
    earlier = job.folder / 'train' / '20250101_000000' / 'vis_data'
    earlier.mkdir(parents=True)
    (earlier / 'scalars.json').write_text('{"step": 5, "time": 1.0, "loss": NaN}\n{"step": 1')
    job.run()
    assert [row['step'] for row in result_of(job)['scalars']] == [5, 10]
    assert result_of(job)['scalars'][0]['loss'] is None
    assert result_of(job)['interruptions'] == 1


def test_a_log_damaged_elsewhere_is_named(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(UsageError, match=r'scalars\.json, line 1 is damaged'):
        read_scalars(path)


def test_results_of_another_config_are_not_touched(make_job):
    job = make_job()
    job.run()
    before = {path: path.read_bytes() for path in job.folder.iterdir() if path.is_file()}
    other = make_job(overrides=('train_cfg.max_epochs=2',))
    with pytest.raises(UsageError, match='holds the work of another config, overrides; results'):
        other.run()
    assert other.calls == []
    assert {path: path.read_bytes() for path in job.folder.iterdir() if path.is_file()} == before


def test_two_runs_do_not_share_a_folder(make_job):
    job, children, ends = make_job(train='import time; time.sleep(120)'), Children(), []

    def work() -> None:
        try:
            job.run(children=children)
        except Stopped:
            ends.append(Stopped)

    worker = threading.Thread(target=work)
    worker.start()
    while not (job.folder / 'train.log').exists():
        time.sleep(0.05)
    with pytest.raises(UsageError, match='is being run by another process'):
        make_job().run()
    children.end()
    worker.join(TIMEOUT)
    assert ends == [Stopped]
    assert not (job.folder / 'failure.json').exists()  # neither is a failure of the job
    with pytest.raises(Stopped):
        make_job().run(children=children)


def test_a_training_dies_with_the_run_that_started_it(make_job, tmp_path):
    """As after kill -9, so that no forgotten training writes beside the next one."""
    child = 'import os, time; print("pid", os.getpid(), flush=True); time.sleep(120)'
    script = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from conftest import StandIn
from mmdysample.reproduce.tables import load_tables
table = load_tables('demo')['faster_rcnn']
job = StandIn(table, table.rows['nearest'], 0, Path({str(tmp_path)!r}), scripts={{'train.py':
    {child!r}}})
job.run()
"""
    process = subprocess.Popen([sys.executable, '-c', script], stdout=subprocess.DEVNULL)
    job = make_job(train='raise SystemExit(5)')
    log = job.folder / 'train.log'
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
        job.run()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    return state != 'Z'


def test_every_change_of_revision_and_device_is_kept(make_job):
    """What the training noted at its start and when it was resumed, not what the end sees."""
    starts = [dict(revision='a', device='x', time='1'), dict(revision='b', device='y', time='2')]
    train = TRAIN + f"(folder / 'provenance.json').write_text(json.dumps({starts!r}))\n"
    job = make_job(train=train)
    job.run()
    record = result_of(job)
    assert record['starts'] == starts
    assert (record['revision'], record['device']) == ('b', 'y')


def test_a_training_is_told_all_that_decides_its_result(make_job, monkeypatch, tmp_path):
    """The work dir as an absolute path: the next call may come from another directory."""
    monkeypatch.chdir(tmp_path)
    overrides = ('load_from=start.pth', 'randomness.deterministic=True')
    job = make_job(seed=3, work_dir=Path('here'), overrides=overrides).plain()
    args = train.parse_args(job.train_command()[2:])
    assert Path(args.work_dir) == tmp_path / job.folder.relative_to(tmp_path) / 'train'
    assert (args.resume, args.seed, args.deterministic) == ('auto', 3, False)
    assert args.cfg_options == {'load_from': 'start.pth', 'randomness.deterministic': True}


def test_a_job_begins_from_the_weights_of_its_start(make_job):
    start = make_job('carafe')
    start = replace(start, table=replace(start.table, name='start', metrics={}))
    job = make_job(start=start, overrides=('max_epochs=2',))
    with pytest.raises(UsageError, match='the training left no checkpoint'):
        job.run()
    start.run()
    job.run()
    weights = start.folder / 'train' / 'epoch_3.pth'
    assert job.train_command()[-3:] == ['--cfg-options', 'max_epochs=2', f'load_from={weights}']
    assert job.test_command()[-2:] == ['--cfg-options', 'max_epochs=2']
    for other in (None, make_job('carafe', overrides=('train_cfg.max_epochs=9',))):
        with pytest.raises(RefusedError, match='the work of another start'):
            replace(job, start=other).run()


def test_a_folder_that_was_moved_is_tested_with_its_own_checkpoint(make_job, tmp_path):
    with pytest.raises(UsageError, match='exit status 1'):
        make_job(test='raise SystemExit(1)').run()
    job = make_job(work_dir=tmp_path / 'moved')
    job.folder.parent.mkdir(parents=True)
    make_job().folder.rename(job.folder)
    assert job.plain().test_command()[3] == str(job.folder / 'train' / 'epoch_3.pth')


def test_commands_for_one_and_for_several_processes(make_job):
    job = make_job().plain()
    command = job.train_command()
    assert command[0] == sys.executable and command[1].endswith('tools/train.py')
    assert command[2].endswith(job.row.config) and '--launcher' not in command

    many = replace(job, gpus=4, torchrun=True).train_command()
    assert many[1:5] == ['-m', 'torch.distributed.run', '--nproc_per_node=4', '--standalone']
    assert many[-2:] == ['--launcher', 'pytorch']

    node = Node(rank=3, count=8, address='n0', port=23456)
    shared = replace(job, gpus=64, torchrun=True).train_command(node)
    assert {'--nnodes=8', '--node_rank=3', '--nproc_per_node=8'} <= set(shared)
    assert {'--master_addr=n0', '--master_port=23456'} <= set(shared)


@pytest.mark.parametrize(
    ('gpus', 'devices', 'seen'), [(0, None, ''), (0, '', ''), (1, '3', '3'), (1, None, '5')]
)
def test_a_job_sees_its_own_gpus_alone(make_job, monkeypatch, gpus, devices, seen):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '5')
    note = TRAIN + "import os; (folder / 'seen').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    job = make_job(train=note, gpus=gpus)
    job.run(devices)
    assert (job.folder / 'train' / 'seen').read_text() == seen


@pytest.mark.skipif(libc_ver()[0] != 'glibc', reason='a setting of the C library glibc')
@pytest.mark.parametrize(
    ('gpus', 'own', 'seen'),
    [(0, None, KEEP_MEMORY), (0, 'glibc.malloc.check=0', 'glibc.malloc.check=0'), (1, None, None)],
)
def test_a_job_on_the_cpu_keeps_its_memory(make_job, monkeypatch, gpus, own, seen):
    """A second tensor of 64 MiB gets no new pages; a user's own setting comes first."""
    monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
    if own:
        monkeypatch.setenv('GLIBC_TUNABLES', own)
    note = TRAIN + (
        'import os, resource\n'
        'def pages(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        'bytearray(2**26); before = pages(); bytearray(2**26); new = pages() - before\n'
        "(folder / 'seen').write_text(f'{new} {os.environ.get(\"GLIBC_TUNABLES\")}')\n"
    )
    job = make_job(train=note, gpus=gpus)
    job.run()
    new, setting = (job.folder / 'train' / 'seen').read_text().split()
    assert setting == str(seen)
    assert seen != KEEP_MEMORY or int(new) < 10


def test_overrides_are_read_as_the_tools_read_them(make_job):
    row = make_job().row
    cfg = load_row_config(row, ['train_cfg.max_epochs=7', 'optim_wrapper.optimizer.lr=1e-4'])
    assert cfg.train_cfg.max_epochs == 7 and cfg.optim_wrapper.optimizer.lr == 1e-4


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
