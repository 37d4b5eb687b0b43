"""Reports of work dirs in which not all is well."""

from __future__ import annotations

import json

import pytest
from report_page import (
    Page,
    fill,
    gathered,
    look_up,
    make_table,
    put_result,
    report_of,
    rows_of,
)

from mmdysample.reproduce.report import write_report
from mmdysample.reproduce.results import cost_file, run_folder
from mmdysample.reproduce.tables import Metric, Row, load_tables


def test_unfinished_and_failed_runs_are_shown(tmp_path):
    work_dir, table = tmp_path / 'work', make_table()
    for seed in (0, 1):
        put_result(work_dir, table, 'nearest', seed, dict(ap=30.0))
    put_result(work_dir, table, 'dysample', 0, dict(ap=31.0))
    failed = run_folder(work_dir, table, 'dysample', 1)
    failed.mkdir()
    error = f'the loss is NaN <b>at once</b>; the end of {failed}/x.log:\nTraceback | last line'
    failure = dict(error=error, log='train.log')
    (failed / 'failure.json').write_text(json.dumps(failure))
    run_folder(work_dir, table, 'dysample_plus', 1).mkdir(parents=True)
    page, report, path = report_of(tmp_path, table, pictures=0)
    rows = rows_of(report)
    assert rows['nearest']['state'] == ''
    assert rows['dysample']['state'] == '1 of 2 seeds finished; seed 1 failed'
    assert rows['dysample_plus']['state'] == '0 of 2 seeds finished; seed 1 unfinished'
    assert rows['sapa_b']['state'] == 'not run'
    assert rows['freqfusion']['state'] == 'no implementation'
    for row in rows.values():
        assert row['state'] in page.text
    assert 'the loss is NaN <b>at once</b>' in page.text
    assert '<b>' not in page.source
    assert 'full/boxes/dysample/seed1/train.log' in page.text
    assert 'Traceback | last line' in page.text
    assert str(tmp_path) not in page.source
    text = path.with_suffix('.md').read_text()
    assert 'the loss is NaN \\<b>at once\\</b>' in text
    assert 'Traceback' not in text


def test_a_failure_that_ended_well_is_no_failure(tmp_path):
    table = make_table()
    put_result(tmp_path / 'work', table, 'nearest', 0, dict(ap=30.0))
    folder = run_folder(tmp_path / 'work', table, 'nearest', 0)
    (folder / 'failure.json').write_text('{"error": "was interrupted"}')
    page, report, _ = report_of(tmp_path, table, pictures=0)
    assert report['tables'][0]['finished'] == 1
    assert 'was interrupted' not in page.text


@pytest.mark.parametrize(
    'content',
    [
        '{"row": ',
        '{}',
        '[]',
        '{"row": "nearest", "seed": 0, "metrics": {"ap": NaN}}',
        '{"row": "nearest", "seed": 0, "metrics": {"ap": "31"}}',
        '{"row": "dysample", "seed": 0, "metrics": {"ap": 31}}',
        '{"row": "nearest", "seed": 0, "metrics": {"ap": 31}, "scalars": "none"}',
    ],
)
def test_a_damaged_result_is_named_and_keeps_no_other_from_the_page(tmp_path, content):
    table = make_table()
    put_result(tmp_path / 'work', table, 'dysample', 0, dict(ap=31.0))
    folder = run_folder(tmp_path / 'work', table, 'nearest', 0)
    folder.mkdir(parents=True)
    (folder / 'result.json').write_text(content)
    page, report, _ = report_of(tmp_path, table, pictures=0)
    assert rows_of(report)['nearest']['runs'][0]['state'] == 'damaged'
    assert 'full/boxes/nearest/seed0/result.json' in page.text
    assert str(tmp_path) not in page.source
    assert page.row('dysample')[1].startswith('31.0')


def test_damaged_costs_are_named(tmp_path):
    table = make_table()
    put_result(tmp_path / 'work', table, 'nearest', 0, dict(ap=31.0))
    cost_file(tmp_path / 'work', table).write_text('{"rows": {"nearest": 3}}')
    page, _, _ = report_of(tmp_path, table, pictures=0)
    assert 'full/boxes/cost.json is damaged' in page.text


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (dict(revision='def'), '2 revisions of the code'),
        (dict(device='a GPU'), '2 devices'),
        (dict(overrides=['train_cfg.max_epochs=1']), '2 sets of overrides'),
        (dict(versions={'torch': 'torch 2.6'}), '2 sets of package versions'),
    ],
)
def test_results_of_unlike_origin_are_warned_of(tmp_path, change, word):
    table = make_table()
    for seed in (0, 1):
        put_result(tmp_path / 'work', table, 'nearest', seed, dict(ap=31.0 + seed))
    assert not gathered(tmp_path, table)['tables'][0]['warnings']
    put_result(tmp_path / 'work', table, 'dysample', 0, dict(ap=32.0), **change)
    page, report, path = report_of(tmp_path, table, pictures=0)
    (warning,) = report['tables'][0]['warnings']
    assert word in warning
    assert 'dysample seed 0' in warning
    assert warning in page.text
    assert '**Mind:**' in path.with_suffix('.md').read_text()


def test_costs_of_another_revision_are_warned_of(tmp_path):
    table = make_table()
    fill(tmp_path / 'work', table)
    assert not gathered(tmp_path, table)['tables'][0]['warnings']
    path = cost_file(tmp_path / 'work', table)
    path.write_text(path.read_text().replace('"abc"', '"def"'))
    page, _, _ = report_of(tmp_path, table, pictures=0)
    assert 'costs were measured at another revision' in page.text


def test_uncommitted_changes_are_warned_of(tmp_path):
    table = make_table()
    put_result(tmp_path / 'work', table, 'nearest', 0, dict(ap=31.0), revision='abc-dirty')
    page, _, _ = report_of(tmp_path, table, pictures=0)
    assert 'changes that are in no revision' in page.text


def test_names_with_markup_are_escaped(tmp_path):
    name = 'up<script>alert(1)</script>&"$x^2$/~|`'
    folder_name = name.replace('/', '∕')  # a name is a folder's too
    rows = {key: Row(key, 'configs/x.py', {}) for key in ('nearest', folder_name)}
    metrics = {'a<b>/c~d': Metric('m<i>')}
    table = make_table(rows=rows, metrics=metrics, columns=[], title='<h1>Title</h1> & more')
    for row in rows:
        values = {'a<b>/c~d': 30.0}
        scalars = [dict(loss=1.0, step=1, iter=1), dict(loss=0.5, step=2, iter=2)]
        put_result(
            tmp_path / 'work', table, row, 0, values, device='<i>device</i>', scalars=scalars
        )
    page, report, path = report_of(tmp_path, table, pictures=0)
    for markup in ('<script', '<h1>Title', '<i>device', 'm<i>', 'a<b>'):
        assert markup not in page.source
    assert folder_name in page.text
    assert '<h1>Title</h1> & more' in page.text
    assert all(float(value) == look_up(report, at) for at, value, _ in page.numbers)
    assert '<script' not in path.with_suffix('.md').read_text().replace('\\<script', '')


def test_an_empty_work_dir_gives_a_page_that_says_so(tmp_path):
    page, report, path = report_of(tmp_path, make_table())
    assert rows_of(report)['dysample']['state'] == 'not run'
    assert '0 of 0 runs finished' in page.text
    assert not list((tmp_path / 'out').glob('*.part'))
    assert {file.name for file in path.parent.iterdir()} >= {
        'report.html',
        'report.md',
        'report.csv',
        'report.json',
    }


def test_no_table_at_all(tmp_path):
    path = write_report(tmp_path / 'work', [], tmp_path / 'out')
    assert 'There is no table' in Page(path).text


@pytest.mark.parametrize('scale', ['full', 'demo'])
def test_every_table_of_the_package_can_be_reported(tmp_path, scale):
    tables = list(load_tables(scale).values())
    for table in tables:
        for row in table.runnable()[:3]:
            for seed in (0, 1):
                metrics = dict.fromkeys(table.metrics, 30.0 + seed)
                put_result(tmp_path / 'work', table, row.name, seed, metrics)
    page = Page(write_report(tmp_path / 'work', tables, tmp_path / 'out', pictures=0))
    for table in tables:
        assert table.title in page.text
    assert page.source.count('class="swatch"') > 10 * len(tables)
