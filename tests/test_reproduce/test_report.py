"""What a work dir holds, on the page and in the files beside it."""

from __future__ import annotations

import csv
import math
import re
import statistics

import pytest
from report_page import (
    AP,
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
from mmdysample.reproduce.report.numbers import count, duration, fixed, milliseconds, signed
from mmdysample.reproduce.tables import Metric, load_tables

T_95 = {2: 12.7062047, 3: 4.3026527}
"""Student's t for 95 % from a printed table, by number of values."""


@pytest.fixture
def full(tmp_path):
    table = make_table()
    fill(tmp_path / 'work', table)
    return report_of(tmp_path, table, pictures=0)


def test_every_number_of_the_page_is_in_the_json(full):
    page, report, _ = full
    assert len(page.numbers) > 60
    for at, value, text in page.numbers:
        assert float(value) == look_up(report, at), at
        number = re.match(r'[+−]?[\d.]+', text)
        assert number, text
        scale = dict(K=1e3, M=1e6, G=1e9).get(text[-1], 1)
        shown = float(number[0].replace('−', '-')) * scale
        digits = len(number[0].partition('.')[2])
        if 'min' not in text and ' h' not in text:
            assert shown == pytest.approx(float(value), abs=0.501 * scale * 10**-digits), at


def test_numbers_that_stand_in_tables_are_marked_as_such(full):
    """No number with decimals gets into a table by another way than from the JSON."""
    page, _, _ = full
    assert not re.findall(r'\d+\.\d+', ' '.join(page.unmarked))


def test_csv_holds_the_json_unrounded(full):
    _, report, path = full
    with path.with_suffix('.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    measured = {
        (line['row'], int(line['seed']), line['column']): float(line['value'])
        for line in lines
        if line['seed']
    }
    expected = {
        (name, run['seed'], column): value
        for name, row in rows_of(report).items()
        for run in row['runs']
        for column, value in run['metrics'].items()
    }
    assert measured == expected
    assert len(measured) == 3 * 3 * 2
    costs = {line['column']: line['value'] for line in lines if line['row'] == 'dysample'}
    assert float(costs['latency_ms']) == 31.234
    assert costs['upsampler_params'] == '24576'
    by_row = {line['row']: line for line in lines if line['column'] == 'ap'}
    assert by_row['dysample']['published'] == '32.50'
    assert by_row['dysample_plus']['published_status'] == 'recalled'
    assert by_row['freqfusion']['published'] == '33.3'
    assert not by_row['freqfusion']['value']
    assert by_row['nearest']['times'] == '100'
    assert by_row['nearest']['unit'] == '%'


def test_markdown_holds_the_json_rounded(full):
    _, report, path = full
    lines = path.with_suffix('.md').read_text().splitlines()
    for name in ('nearest', 'dysample', 'dysample_plus'):
        row = rows_of(report)[name]
        shown = name.replace('_', '\\_')
        cells = next(line for line in lines if line.startswith(f'| {shown} |')).split(' | ')
        summary = row['measured']['ap']
        assert cells[2] == f'{summary["mean"]:.1f} ± {summary["band"]:.1f}'


def test_bands_are_intervals_of_students_t(full):
    _, report, _ = full
    rows = rows_of(report)
    measured, gain = rows['nearest']['measured']['ap'], rows['dysample']['gain']['ap']
    assert measured['mean'] == pytest.approx(31.4666667)
    deviation = math.sqrt(sum((v - sum(AP) / 3) ** 2 for v in AP) / 2)
    assert measured['band'] == pytest.approx(T_95[3] * deviation / math.sqrt(3))
    assert gain['mean'] == pytest.approx(1.1)
    assert gain['band'] == pytest.approx(T_95[3] * 0.2 / math.sqrt(3))  # far less than measured
    assert measured['band'] > 4 * gain['band']


def test_gains_are_told_from_noise(full):
    page, report, _ = full
    rows = rows_of(report)
    assert rows['dysample']['gain']['ap']['verdict'] == 'better'
    assert rows['dysample_plus']['gain']['ap']['verdict'] == 'within noise'
    assert page.row('dysample')[2].startswith('▲ +1.1 ± 0.5')
    assert 'within noise' in page.row('dysample_plus')[2]
    assert '▲' not in page.row('dysample_plus')[2]


def test_less_is_better_where_the_metric_says_so(full):
    page, report, _ = full
    gain = rows_of(report)['dysample']['gain']['rmse']
    assert gain['mean'] < 0
    assert gain['verdict'] == 'better'
    assert f'class="small better">▼ <data value="{gain["mean"]!r}"' in page.source
    assert 'less is better' in page.text


def test_more_is_worse_where_less_is_better(tmp_path):
    table = make_table(metrics={'rmse': Metric('rmse', digits=3, lower=True)})
    for seed in (0, 1):
        put_result(tmp_path / 'work', table, 'nearest', seed, dict(rmse=0.5))
        put_result(tmp_path / 'work', table, 'dysample', seed, dict(rmse=0.6 + 0.0001 * seed))
    page, report, _ = report_of(tmp_path, table, pictures=0)
    gain = rows_of(report)['dysample']['gain']['rmse']
    assert gain['verdict'] == 'worse'
    assert gain['band'] == pytest.approx(T_95[2] * statistics.stdev((0.1, 0.1001)) / math.sqrt(2))
    assert '▲ +0.100' in page.row('dysample')[2]


def test_differences_only_to_confirmed_figures(full):
    page, report, _ = full
    rows = rows_of(report)
    difference = rows['dysample']['difference']['ap']
    assert difference['mean'] == pytest.approx(sum(AP) / 3 + 1.1 - 32.5)
    assert difference['band'] == rows['dysample']['measured']['ap']['band']
    assert rows['dysample_plus']['measured']['ap']
    assert not rows['dysample_plus']['difference']
    cells = page.row('dysample_plus')
    assert cells[3] == '32.9†'
    assert cells[4] == '–'
    assert page.row('dysample')[3] == '32.50'
    assert 'not read again' in page.text


def test_demo_is_never_compared_with_what_was_published(tmp_path):
    table = make_table('demo')
    fill(tmp_path / 'work', table)
    page, report, path = report_of(tmp_path, table, pictures=0)
    assert all(not row['difference'] for row in report['tables'][0]['rows'])
    assert 'As published at full scale' in page.text
    assert 'measured − published' not in page.text
    assert '32.50' not in page.row('dysample')
    with path.with_suffix('.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    assert not any(line['published'] for line in lines if line['value'])
    assert {line['scale'] for line in lines if line['published']} == {'full'}


def test_one_seed_says_nothing_about_noise(tmp_path):
    table = make_table()
    for row in ('nearest', 'dysample'):
        put_result(tmp_path / 'work', table, row, 0, dict(ap=30 + len(row)))
    page, report, _ = report_of(tmp_path, table, pictures=0)
    gain = rows_of(report)['dysample']['gain']['ap']
    assert gain['band'] is None
    assert gain['verdict'] == 'one seed: noise unknown'
    assert 'one seed: noise unknown' in page.row('dysample')[2]
    assert 'one seed: noise unknown' in page.row('dysample')[4]
    assert '±' not in ''.join(page.row('dysample'))


def test_gains_pair_seeds(tmp_path):
    table = make_table()
    for seed in (0, 1, 2):
        put_result(tmp_path / 'work', table, 'nearest', seed, dict(ap=10.0 * seed))
    put_result(tmp_path / 'work', table, 'dysample', 2, dict(ap=21.0))
    report = gathered(tmp_path, table)
    assert rows_of(report)['dysample']['gain']['ap']['mean'] == 1


def test_a_row_on_another_backbone_is_compared_with_its_own_baseline(tmp_path):
    table = load_tables('full')['faster_rcnn']
    for row, value in dict(nearest=37, nearest_r101=39, dysample_plus_r101=40).items():
        put_result(tmp_path / 'work', table, row, 0, dict(ap=value))
    page, report, _ = report_of(tmp_path, table, pictures=0)
    row = rows_of(report)['dysample_plus_r101']
    assert row['baseline'] == 'nearest_r101'
    assert row['gain']['ap']['mean'] == 1
    assert not rows_of(report)['nearest_r101']['gain']
    assert 'over nearest_r101' in page.row('dysample_plus_r101')[2]


def test_the_page_loads_nothing(full):
    page, report, _ = full
    assert all(load.startswith(('data:', '#')) for load in page.loads)
    assert not re.findall(r'url\((?!#)|@import', page.source)
    sources = {source['url'] for source in report['sources'].values()}
    assert {link for link in page.links if not link.startswith('#')} <= sources
    outside = re.sub(r'<a href="https?://[^"]*"', '<a', page.source)
    assert not re.findall(r'https?://', outside)


def test_links_within_the_page_lead_somewhere(full):
    page, _, _ = full
    assert len(page.ids) == len(set(page.ids))
    within = [link for link in page.links if link.startswith('#')]
    assert within
    assert {link[1:] for link in within} <= set(page.ids)


def test_ids_of_figures_do_not_clash(tmp_path):
    tables = [make_table(), make_table('demo')]
    for table in tables:
        fill(tmp_path / 'work', table)
    page = Page(write_report(tmp_path / 'work', tables, tmp_path / 'out', pictures=0))
    assert page.source.count('<svg viewBox="0 0 3') == 6
    assert len(page.ids) == len(set(page.ids))
    used = set(re.findall(r'url\(#([^)]+)\)', page.source))
    used |= {load[1:] for load in page.loads if load.startswith('#')}
    assert used
    assert used <= set(page.ids)


def test_curves_are_averaged_and_an_iteration_done_twice_counts_once(tmp_path):
    table = make_table()
    for seed in (0, 1):
        scalars = [dict(loss=float(5 + seed), step=10), dict(loss=99.0, step=20)]
        scalars += [dict(loss=float(3 + seed), step=20), dict(loss=math.inf, step=30)]
        scalars += [{'coco/bbox_mAP': 0.25 + 0.1 * seed, 'step': 30}]
        put_result(tmp_path / 'work', table, 'nearest', seed, dict(ap=1.0), scalars=scalars)
    report = gathered(tmp_path, table)
    curves = report['tables'][0]['curves']
    assert curves['loss']['nearest'] == dict(
        step=[10, 20], mean=[5.5, 3.5], low=[5, 3], high=[6, 4]
    )
    assert curves['validation']['nearest']['mean'] == [pytest.approx(30)]
    assert curves['axis'] == 'iteration'


def test_long_curves_are_smoothed_and_thinned(tmp_path):
    table = make_table()
    scalars = [dict(loss=1 + (-1) ** step * 0.5, step=step, epoch=1) for step in range(4000)]
    put_result(tmp_path / 'work', table, 'nearest', 0, dict(ap=1.0), scalars=scalars)
    page, report, _ = report_of(tmp_path, table, pictures=0)
    curve = report['tables'][0]['curves']['loss']['nearest']
    assert len(curve['step']) == 150
    assert all(abs(value - 1) < 0.02 for value in curve['mean'][5:-5])
    assert len(page.source) < 100_000


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (fixed(-0.04, 1), '0.0'),
        (fixed(-1.25, 2), '−1.25'),
        (signed(0.04, 1), '0.0'),
        (signed(1.26, 1), '+1.3'),
        (signed(-1.26, 1), '−1.3'),
        (count(0), '0'),
        (count(999), '999'),
        (count(24_576), '24.6 K'),
        (count(999_999), '1.00 M'),
        (count(2_831_234), '2.83 M'),
        (count(216e9), '216 G'),
        (milliseconds(1234.5), '1234 ms'),
        (milliseconds(31.234), '31.2 ms'),
        (milliseconds(0.1234), '0.123 ms'),
        (duration(60.5), '60 s'),
        (duration(5400), '90 min'),
        (duration(36_000), '10 h 0 min'),
    ],
)
def test_numbers_are_written_for_people(text, expected):
    assert text == expected
