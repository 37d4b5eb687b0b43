"""Jobs side by side: failures stay with their row, an interruption ends all of them."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.pool import devices_for, run_all


def test_a_failed_row_stops_no_other(make_job):
    jobs = [
        make_job('nearest'),
        make_job('carafe', train='raise SystemExit(1)'),
        make_job('dysample'),
    ]
    lines = []
    failures = run_all(jobs, [None, None], lines.append)
    assert list(failures) == ['faster_rcnn/carafe seed 0']
    assert [job.finished() for job in jobs] == [True, False, True]
    assert any(line.startswith('FAILED') for line in lines)


def test_an_error_that_nobody_foresaw_stops_no_other_row(make_job):
    jobs, lines = [make_job('nearest'), make_job('carafe')], []

    def fail(*_):
        raise PermissionError('the folder is locked')

    jobs[0].run = fail
    failures = run_all(jobs, [None], lines.append)
    assert failures == {'faster_rcnn/nearest seed 0': "PermissionError('the folder is locked')"}
    assert jobs[1].finished()
    assert 'the folder is locked' in lines[0]


def test_what_was_finished_before_is_kept_and_counts_for_no_time(make_job):
    make_job('nearest').run()
    jobs, lines = [make_job('nearest'), make_job('carafe')], []
    for job in jobs:
        job.say = lambda text, row=job.row.name: lines.append(f'{row}: {text}')
    assert run_all(jobs, [None], lines.append) == {}
    assert lines[0] == 'nearest: kept; 1 of 2'
    assert lines[-1] == 'carafe: finished; 2 of 2, about 0 min left'
    assert jobs[0].calls == []


def test_each_job_has_a_place_of_its_own(make_job, tmp_path):
    note = (
        'import os, sys, time\n'
        f'open({str(tmp_path / "log")!r}, "a").write("+" + os.environ["CUDA_VISIBLE_DEVICES"])\n'
        'time.sleep(0.3)\n'
        f'open({str(tmp_path / "log")!r}, "a").write("-" + os.environ["CUDA_VISIBLE_DEVICES"])\n'
        'raise SystemExit(1)'
    )
    jobs = [make_job(seed=seed, train=note) for seed in range(5)]
    run_all(jobs, ['3', '5'], lambda line: None)
    log = (tmp_path / 'log').read_text()
    for place in '35':
        marks = [log[i] for i in range(0, len(log), 2) if log[i + 1] == place]
        assert marks == ['+', '-'] * (len(marks) // 2) and marks


def test_an_interruption_ends_what_was_started(make_job):
    jobs = [make_job(seed=seed, train='import time; time.sleep(120)') for seed in range(3)]

    def interrupt() -> None:
        while not (jobs[0].folder / 'train.log').exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_all(jobs, [None], lambda line: None)
    assert not jobs[1].folder.exists()
    assert not (jobs[0].folder / 'failure.json').exists()


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,4,6,7')
    assert devices_for(2, 2) == ['2,4', '6,7']
    assert devices_for(3, 0) == [None] * 3
    with pytest.raises(UsageError, match=r'3 job\(s\) of 2 GPU\(s\) need 6, .* shows 4'):
        devices_for(3, 2)
