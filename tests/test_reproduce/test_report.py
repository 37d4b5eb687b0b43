"""What a work dir holds, on the page and in the files beside it."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from fabricated import AP, GAINS, Page, fill, make_table, put_cost, put_result, report_of

from mmdysample.reproduce.plots import learning_curves
from mmdysample.reproduce.report import fixed, three_digits, write_report
from mmdysample.reproduce.results import find_runs, run_folder
from mmdysample.reproduce.tables import Metric, Row, load_sources, load_tables


@pytest.fixture
def full(tmp_path):
    table = make_table()
    fill(tmp_path / 'work', table)
    return report_of(tmp_path, table)


def markdown_row(path, name) -> list[str]:
    lines = path.with_suffix('.md').read_text().splitlines()
    start = f'| {name}'.replace('_', '\\_')
    line = next(line for line in lines if line.startswith((f'{start} |', f'{start}  ')))
    return [cell.strip() for cell in line.strip('|').split('|')]


def test_numbers_as_computed_by_hand(full):
    """Mean, gain and its band of DySample's row: the same on the page and in Markdown."""
    page, path = full
    mean = sum(value + gain for value, gain in zip(AP, GAINS['dysample'], strict=True)) / 3
    assert page.row('dysample')[1].startswith(f'{mean:.1f} ± 2.') and f'{mean:.1f}' == '32.6'
    assert page.row('dysample')[2].startswith('▲ +1.1 ± 0.5')
    assert page.row('dysample')[3:5] == ['32.50', '+0.1 ± 2.6']
    cells = markdown_row(path, 'dysample')
    assert cells[2].startswith('32.6 ± 2.') and cells[3] == '+1.1 ± 0.5 (better)'
    assert cells[4:6] == ['32.50', '+0.1']
    assert 'within noise' in page.row('dysample_plus')[2]
    assert '▲' not in page.row('dysample_plus')[2]
    assert page.row('dysample_plus')[3:5] == ['32.9†', '–']
    assert page.row('dysample')[5] == '1.05×31.5 ms'
    assert page.row('dysample')[6] == '24.6 k of 2.83 M12.3 M MACs'


def test_less_is_better_where_the_metric_says_so(full):
    page, _ = full
    assert re.search(r'class="better">▼ −0\.09', page.source)
    assert 'less is better' in page.text


def test_csv_holds_every_number_unrounded(full):
    _, path = full
    frame = pd.read_csv(path.with_suffix('.csv'), dtype={'value': str})
    measured = frame[frame.kind == 'measured']
    assert len(measured) == 3 * 3 * 2
    for row, gains in dict(GAINS, nearest=(0, 0, 0)).items():
        found = measured[(measured.row == row) & (measured.column == 'ap')]
        expected = [value + gain for value, gain in zip(AP, gains, strict=True)]
        assert found.sort_values('seed').value.astype(float).tolist() == expected
    costs = frame[(frame.kind == 'cost') & (frame.row == 'dysample')].set_index('column').value
    assert costs['upsampler_params'] == '24576' and float(costs['latency_ratio']) == 31.5 / 30
    published = frame[frame.kind == 'published'].set_index('row')
    assert published.value['dysample'] == '32.50'
    assert published.status['dysample_plus'] == 'recalled'
    assert set(published.scale) == {'full'} and published.unit['nearest'] == '%'
    gain = frame[(frame.kind == 'gain') & (frame.column == 'ap')].set_index('row').loc['dysample']
    assert float(gain.value) == pytest.approx(1.1) and gain.verdict == 'better'
    assert gain.band == pytest.approx(4.3026527 * 0.2 / 3**0.5)  # Student's t for three seeds


def test_demo_is_never_compared_with_what_was_published(tmp_path):
    table = make_table('demo')
    fill(tmp_path / 'work', table)
    page, _ = report_of(tmp_path, table)
    assert 'As published at full scale' in page.text
    assert 'measured − published' not in page.text
    assert '32.50' not in page.row('dysample')


def test_one_seed_says_nothing_about_noise(tmp_path):
    table = make_table()
    for row in ('nearest', 'dysample'):
        put_result(tmp_path / 'work', table, row, 0, dict(ap=30 + len(row)))
    page, path = report_of(tmp_path, table)
    assert 'one seed: noise unknown' in page.row('dysample')[2]
    assert 'one seed: noise unknown' in page.row('dysample')[4]
    assert '±' not in ''.join(page.row('dysample'))
    assert '+1.0 (one seed: noise unknown)' in markdown_row(path, 'dysample')


def test_the_page_loads_nothing(full):
    page, _ = full
    assert all(load.startswith(('data:', '#')) for load in page.loads)
    assert not re.findall(r'url\((?!#)|@import', page.source)
    sources = {source['url'] for source in load_sources().values()}
    assert {link for link in page.links if not link.startswith('#')} <= sources
    outside = re.sub(r'<a href="https?://[^"]*"', '<a', page.source)
    assert not re.findall(r'https?://', outside)
    assert page.source.count('<style') == 1  # that of a plot would be for the whole page


def test_links_within_the_page_lead_somewhere_and_ids_do_not_clash(tmp_path):
    tables = [make_table(), make_table('demo')]
    for table in tables:
        fill(tmp_path / 'work', table)
    page, _ = report_of(tmp_path, tables)
    assert page.source.count('<img src="data:image/svg+xml') == 6
    assert len(page.ids) == len(set(page.ids))
    used = {link[1:] for link in [*page.links, *page.loads] if link.startswith('#')}
    used |= set(re.findall(r'url\(#([^)]+)\)', page.source))
    assert used and used <= set(page.ids)


def test_curves_are_averaged_and_an_iteration_done_twice_counts_once(tmp_path):
    table = make_table()
    for seed in (0, 1):
        scalars = [dict(loss=float(5 + seed), step=10), dict(loss=99.0, step=20)]
        scalars += [dict(loss=float(3 + seed), step=20), dict(loss=None, step=30)]
        scalars += [{'coco/bbox_mAP': 0.25 + 0.1 * seed, 'step': 30}]
        put_result(tmp_path, table, 'nearest', seed, dict(ap=1.0), scalars=scalars)
    curves = learning_curves(table, find_runs(tmp_path, table))
    loss = curves['loss']
    assert loss[['step', 'mean', 'min', 'max']].values.tolist() == [
        [10, 5.5, 5, 6],
        [20, 3.5, 3, 4],
    ]
    assert curves['validation']['mean'].tolist() == [pytest.approx(30)]


def test_long_curves_are_smoothed_and_thinned(tmp_path):
    table = make_table()
    scalars = [dict(loss=1 + (-1) ** step * 0.5, step=step, epoch=1) for step in range(4000)]
    put_result(tmp_path / 'work', table, 'nearest', 0, dict(ap=1.0), scalars=scalars)
    curve = learning_curves(table, find_runs(tmp_path / 'work', table))['loss']
    assert ((curve['mean'] - 1).abs() < 0.02).all()
    page, _ = report_of(tmp_path, table)
    assert len(page.source) < 100_000


# Work dirs in which not all is well --------------------------------------------------------------


def test_unfinished_and_failed_runs_are_shown(tmp_path):
    work_dir, table = tmp_path / 'work', make_table()
    for seed in (0, 1):
        put_result(work_dir, table, 'nearest', seed, dict(ap=30.0))
    put_result(work_dir, table, 'dysample', 0, dict(ap=31.0))
    failed = run_folder(work_dir, table, 'dysample', 1)
    failed.mkdir()
    error = f'the loss is NaN <b>at once</b>; the end of {failed}/x.log:\nTraceback | last line'
    (failed / 'failure.json').write_text(json.dumps(dict(error=error)))
    run_folder(work_dir, table, 'dysample_plus', 1).mkdir(parents=True)
    page, path = report_of(tmp_path, table)
    states = {
        'dysample': '1 of 2 seeds finished; seed 1 failed',
        'dysample_plus': '0 of 2 seeds finished; seed 1 unfinished',
        'sapa_b': 'not run',
    }
    for row, state in states.items():
        assert page.row(row)[0] == f'{row} {state}'
    assert page.row('nearest')[0] == 'nearest'
    assert 'the loss is NaN <b>at once</b>' in page.text and 'Traceback | last line' in page.text
    assert '<b>' not in page.source and str(tmp_path) not in page.source
    text = path.with_suffix('.md').read_text()
    assert 'the loss is NaN \\<b>at once\\</b>' in text and 'Traceback' not in text


def test_a_failure_that_ended_well_is_no_failure(tmp_path):
    table = make_table()
    put_result(tmp_path / 'work', table, 'nearest', 0, dict(ap=30.0))
    folder = run_folder(tmp_path / 'work', table, 'nearest', 0)
    (folder / 'failure.json').write_text('{"error": "was interrupted"}')
    page, _ = report_of(tmp_path, table)
    assert '1 of 1 runs finished' in page.text and 'was interrupted' not in page.text


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (dict(revision='def'), '2 revisions of the code'),
        (dict(device='a GPU'), '2 devices'),
        (dict(overrides=['train_cfg.max_epochs=1']), '2 sets of overrides'),
        (dict(versions={'torch': 'torch 2.6'}), '2 sets of package versions'),
        (dict(batch=2), 'Updates had 2 images; the schedule is made for 16'),
        (dict(revision='abc-dirty'), 'changes that are in no revision'),
        (
            dict(starts=[dict(revision='a' * 40, device='x'), dict(revision='b' * 40, device='x')]),
            f'dysample seed 0 was resumed with another revision: {"a" * 12}, then {"b" * 12}.',
        ),
    ],
)
def test_results_of_unlike_origin_are_warned_of(tmp_path, change, word):
    table = make_table()
    for seed in (0, 1):
        put_result(tmp_path / 'work', table, 'nearest', seed, dict(ap=31.0 + seed))
    assert 'Mind:' not in report_of(tmp_path, table)[0].text
    put_result(tmp_path / 'work', table, 'dysample', 0, dict(ap=32.0), **change)
    page, path = report_of(tmp_path, table)
    assert word in page.text and 'Mind:' in page.text
    assert '**Mind:**' in path.with_suffix('.md').read_text()


def test_costs_of_another_revision_are_warned_of_and_damaged_ones_left_out(tmp_path):
    table = make_table()
    fill(tmp_path / 'work', table)
    put_cost(tmp_path / 'work', table, 'dysample', 31.5, revision='def', device='a GPU')
    put_cost(tmp_path / 'work', table, 'dysample_plus', 31.5, latency_ms='fast')
    page, _ = report_of(tmp_path, table)
    assert 'Costs were measured at another revision' in page.text
    assert page.row('dysample')[5] == '31.5 ms'  # no ratio to another device's
    assert page.row('dysample_plus')[5] == '–'


def test_names_with_markup_are_escaped(tmp_path):
    name = 'up<script>alert(1)∕script>&"$x^2$~|`'
    rows = {key: Row(key, 'configs/x.py', {}) for key in ('nearest', name)}
    metrics = {'a<b>c': Metric('m<i>')}
    table = make_table(rows=rows, metrics=metrics, columns=[], title='<h1>Title</h1> & more')
    for row in rows:
        put_result(tmp_path / 'work', table, row, 0, {'a<b>c': 30.0}, device='<i>device</i>')
    page, path = report_of(tmp_path, table)
    for markup in ('<script', '<h1>Title', '<i>device', 'm<i>', 'a<b>'):
        assert markup not in page.source
    assert name in page.text and '<h1>Title</h1> & more' in page.text
    assert '<script' not in path.with_suffix('.md').read_text().replace('\\<script', '')


def test_an_empty_work_dir_and_no_table_at_all(tmp_path):
    page, path = report_of(tmp_path, make_table(), pictures=3)
    assert page.row('dysample')[0] == 'dysample not run'
    assert '0 of 0 runs finished' in page.text
    names = {file.name for file in path.parent.iterdir() if file.is_file()}
    assert names == {'report.html', 'report.md', 'report.csv'}
    assert 'There is no table' in Page(write_report(tmp_path, [], tmp_path / 'none')).text


@pytest.mark.parametrize('scale', ['full', 'demo'])
def test_every_table_of_the_package_can_be_reported(tmp_path, scale):
    tables = list(load_tables(scale).values())
    for table in tables:
        for row in table.runnable()[:3]:
            for seed in (0, 1):
                metrics = dict.fromkeys(table.metrics, 30.0 + seed)
                put_result(tmp_path / 'work', table, row.name, seed, metrics, batch=table.batch)
    page, _ = report_of(tmp_path, tables)
    for table in tables:
        assert table.title in page.text
    least = 10 * len(tables) + (scale == 'full')  # tables of the demo have no more than ten each
    assert page.source.count('class="swatch"') >= least
    assert 'Mind:' not in page.text


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (fixed(-0.04, 1), '0.0'),
        (fixed(-1.25, 2), '−1.25'),
        (fixed(0.04, 1, '+'), '0.0'),
        (fixed(1.26, 1, '+'), '+1.3'),
        (fixed(-1.26, 1, '+'), '−1.3'),
        (three_digits(0), '0'),
        (three_digits(999), '999'),
        (three_digits(24_576), '24.6 k'),
        (three_digits(999_999), '1 M'),
        (three_digits(2_831_234), '2.83 M'),
        (three_digits(216e9), '216 G'),
        (three_digits(1.2345, 's'), '1.23 s'),
        (three_digits(0.031234, 's'), '31.2 ms'),
    ],
)
def test_numbers_are_written_for_people(text, expected):
    assert text == expected
