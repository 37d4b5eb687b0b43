"""Results are written once, read back, and summed up as computed by hand."""

from __future__ import annotations

import json
import math

import pytest

from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.results import (
    Result,
    gain,
    load_results,
    metrics_of,
    run_folder,
    summarize,
    write_once,
)
from mmdysample.reproduce.tables import load_tables

TABLE = load_tables('demo')['faster_rcnn']


def test_a_result_is_never_replaced(tmp_path):
    path = tmp_path / 'result.json'
    write_once(path, dict(ap=1))
    with pytest.raises(FileExistsError):
        write_once(path, dict(ap=2))
    assert json.loads(path.read_text()) == dict(ap=1)
    assert [file.name for file in tmp_path.iterdir()] == ['result.json']


def test_results_are_written_without_hard_links_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError('no links here')

    monkeypatch.setattr('os.link', refuse)
    path = tmp_path / 'result.json'
    write_once(path, dict(ap=1))
    with pytest.raises(FileExistsError, match=r'result\.json exists'):
        write_once(path, dict(ap=2))
    assert json.loads(path.read_text()) == dict(ap=1)
    assert [file.name for file in tmp_path.iterdir()] == ['result.json']


def test_a_record_that_cannot_be_written_leaves_no_result(tmp_path):
    path = tmp_path / 'result.json'
    with pytest.raises(TypeError):
        write_once(path, dict(ap=object()))
    assert not path.exists()


def test_metrics_are_in_the_columns_unit_and_absent_where_not_measured():
    test = {'coco/bbox_mAP': 0.386, 'coco/bbox_mAP_l': -1.0, 'coco/bbox_mAP_s': math.nan}
    assert metrics_of(TABLE, test) == pytest.approx(dict(ap=38.6))
    with pytest.raises(UsageError, match='reported none of coco/bbox_mAP, '):
        metrics_of(TABLE, dict(mIoU=1.0))


def test_a_zero_is_a_measurement():
    assert metrics_of(TABLE, {'coco/bbox_mAP': 0.0}) == dict(ap=0.0)


def test_band_is_students_t():
    summary = summarize([1.0, 2.0, 4.0])
    assert summary.mean == pytest.approx(7 / 3)
    deviation = math.sqrt(((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 2)
    assert summary.band == pytest.approx(4.302653 * deviation / math.sqrt(3), rel=1e-6)
    assert summarize([1.0]).band is None
    with pytest.raises(ValueError, match='values must hold at least one number'):
        summarize([])


def result(row, seed, ap):
    return Result(row, seed, {} if ap is None else dict(ap=ap), None, {})


def test_gain_pairs_seeds():
    results = [result('nearest', 0, 10), result('nearest', 1, 20), result('nearest', 2, 90)]
    results += [result('dysample', 1, 21), result('dysample', 0, 12), result('dysample', 3, 99)]
    summary = gain(results, 'dysample', 'nearest', 'ap')
    assert summary.values == (2, 1) and summary.mean == 1.5
    assert gain(results, 'carafe', 'nearest', 'ap') is None
    assert gain([result('a', 0, None), result('b', 0, 1)], 'a', 'b', 'ap') is None


def test_results_come_by_row_and_number_of_the_seed(tmp_path):
    for row, seed in (('dysample', 10), ('dysample', 9), ('nearest', 0)):
        folder = run_folder(tmp_path, TABLE, row, seed)
        folder.mkdir(parents=True)
        write_once(folder / 'result.json', dict(row=row, seed=seed, metrics=dict(ap=1.0)))
    run_folder(tmp_path, TABLE, 'nearest', 1).mkdir()  # begun, not finished
    found = [(item.row, item.seed) for item in load_results(tmp_path, TABLE)]
    assert found == [('nearest', 0), ('dysample', 9), ('dysample', 10)]


def test_a_damaged_result_is_named(tmp_path):
    folder = run_folder(tmp_path, TABLE, 'nearest', 0)
    folder.mkdir(parents=True)
    (folder / 'result.json').write_text('{"row": ')
    with pytest.raises(UsageError, match=r'seed0/result\.json is damaged'):
        load_results(tmp_path, TABLE)
