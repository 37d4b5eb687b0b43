"""Results are written once, read back, and summed up as computed by hand."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('pandas')

from fabricated import AP, fill, make_table, put_result

from mmdysample.engine.errors import UsageError
from mmdysample.engine.files import write_json
from mmdysample.reproduce.results import (
    find_runs,
    mean_and_band,
    metrics_of,
    read_result,
    run_folder,
    summarize,
)
from mmdysample.reproduce.tables import Metric, load_tables

pytestmark = pytest.mark.smoke
TABLE = load_tables('demo')['faster_rcnn']
T_95 = {2: 12.7062047, 3: 4.3026527}
"""Student's t for 95 % from a printed table, by number of values."""


def deviation(values) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    path = tmp_path / 'result.json'
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_json(path, dict(ap=math.nan))
    assert not list(tmp_path.iterdir())
    write_json(path, dict(ap=1))
    assert json.loads(path.read_text()) == dict(ap=1)
    assert [file.name for file in tmp_path.iterdir()] == ['result.json']


def test_metrics_are_in_the_columns_unit_and_absent_where_not_measured():
    test = {'coco/bbox_mAP': 0.386, 'coco/bbox_mAP_l': -1.0, 'coco/bbox_mAP_s': math.nan}
    assert metrics_of(TABLE, test) == pytest.approx(dict(ap=38.6))
    assert metrics_of(TABLE, {'coco/bbox_mAP': 0.0}) == dict(ap=0.0)  # a measurement
    with pytest.raises(UsageError, match='reported none of coco/bbox_mAP, '):
        metrics_of(TABLE, dict(mIoU=1.0))


def test_band_is_students_t():
    mean, band = mean_and_band([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert band == pytest.approx(T_95[3] * deviation([1, 2, 4]) / math.sqrt(3), rel=1e-6)
    assert mean_and_band([1.0]) == (1.0, None)
    with pytest.raises(ValueError, match='values must hold at least one number'):
        mean_and_band([])


def cells_of(tmp_path, table):
    return summarize(table, find_runs(tmp_path, table))


def test_bands_and_gains_are_intervals_of_students_t(tmp_path):
    table = make_table()
    fill(tmp_path, table)
    cells = cells_of(tmp_path, table)
    nearest, dysample = cells['nearest']['ap'], cells['dysample']['ap']
    assert nearest.mean == pytest.approx(31.4666667)
    assert nearest.band == pytest.approx(T_95[3] * deviation(AP) / math.sqrt(3))
    assert nearest.gain is None and nearest.verdict == ''
    assert dysample.gain == pytest.approx(1.1)
    assert dysample.gain_band == pytest.approx(T_95[3] * 0.2 / math.sqrt(3))  # paired: far less
    assert dysample.verdict == 'better'
    assert cells['dysample_plus']['ap'].verdict == 'within noise'
    assert cells['dysample']['rmse'].gain < 0 and cells['dysample']['rmse'].verdict == 'better'


def test_more_is_worse_where_less_is_better(tmp_path):
    table = make_table(metrics={'rmse': Metric('rmse', digits=3, lower=True)})
    for seed in (0, 1):
        put_result(tmp_path, table, 'nearest', seed, dict(rmse=0.5))
        put_result(tmp_path, table, 'dysample', seed, dict(rmse=0.6 + 0.0001 * seed))
    cell = cells_of(tmp_path, table)['dysample']['rmse']
    assert cell.verdict == 'worse'
    assert cell.gain_band == pytest.approx(T_95[2] * deviation([0.1, 0.1001]) / math.sqrt(2))


def test_differences_only_to_confirmed_numbers_of_the_same_scale(tmp_path):
    table, demo = make_table(), make_table('demo')
    for each in (table, demo):
        fill(tmp_path, each)
    cells = cells_of(tmp_path, table)
    assert cells['dysample']['ap'].difference == pytest.approx(sum(AP) / 3 + 1.1 - 32.5)
    assert cells['dysample_plus']['ap'].difference is None  # recalled
    assert all(c['ap'].difference is None for c in cells_of(tmp_path, demo).values() if c)


def test_gains_pair_seeds_and_one_seed_says_nothing_about_noise(tmp_path):
    table = make_table()
    for seed in (0, 1, 2):
        put_result(tmp_path, table, 'nearest', seed, dict(ap=10.0 * seed))
    put_result(tmp_path, table, 'dysample', 2, dict(ap=21.0))
    put_result(tmp_path, table, 'dysample_plus', 7, dict(ap=21.0))
    cells = cells_of(tmp_path, table)
    assert cells['dysample']['ap'].gain == 1 and cells['dysample']['ap'].band is None
    assert cells['dysample']['ap'].verdict == 'one seed: noise unknown'
    assert cells['dysample_plus']['ap'].gain is None


def test_a_row_on_another_backbone_is_compared_with_its_own_baseline(tmp_path):
    table = load_tables('full')['faster_rcnn']
    for row, value in dict(nearest=37, nearest_r101=39, dysample_plus_r101=40).items():
        put_result(tmp_path, table, row, 0, dict(ap=value))
    cells = cells_of(tmp_path, table)
    assert cells['dysample_plus_r101']['ap'].gain == 1
    assert cells['nearest_r101']['ap'].gain is None


def test_runs_come_by_row_and_number_of_the_seed(tmp_path):
    for row, seed in (('dysample', 10), ('dysample', 9), ('nearest', 0)):
        put_result(tmp_path, TABLE, row, seed, dict(ap=1.0))
    run_folder(tmp_path, TABLE, 'nearest', 1).mkdir()  # begun, not finished
    run_folder(tmp_path, TABLE, 'nearest', 1).with_name('seed0.old').mkdir()  # moved away
    found = [(run.row, run.seed, run.state) for run in find_runs(tmp_path, TABLE)]
    assert found == [
        ('nearest', 0, 'finished'),
        ('nearest', 1, 'unfinished'),
        ('dysample', 9, 'finished'),
        ('dysample', 10, 'finished'),
    ]


@pytest.mark.parametrize(
    'content',
    [
        '{"row": ',
        '{}',
        '[]',
        '{"row": "nearest", "seed": 0, "metrics": {"ap": NaN}}',
        '{"row": "nearest", "seed": 0, "metrics": {"ap": "31"}}',
        '{"row": "nearest", "seed": 0, "metrics": [31]}',
        '{"row": "nearest", "seed": 0, "metrics": {"ap": 31}, "scalars": "none"}',
    ],
)
def test_a_damaged_result_is_named_and_hides_no_other(tmp_path, content):
    table = make_table()
    put_result(tmp_path, table, 'dysample', 0, dict(ap=31.0))
    path = run_folder(tmp_path, table, 'nearest', 0) / 'result.json'
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UsageError, match=r'seed0/result\.json is damaged'):
        read_result(path, 'nearest', 0)
    damaged, whole = find_runs(tmp_path, table)
    assert (damaged.state, whole.state) == ('damaged', 'finished')
    assert damaged.error.startswith('full/boxes/nearest/seed0/result.json is damaged')


def test_a_result_in_another_rows_folder_is_refused(tmp_path):
    table = make_table()
    put_result(tmp_path, table, 'dysample', 0, dict(ap=31.0))
    path = run_folder(tmp_path, table, 'dysample', 0) / 'result.json'
    with pytest.raises(UsageError, match="result of 'dysample' with seed 0: it lies in the wrong"):
        read_result(path, 'nearest', 0)
