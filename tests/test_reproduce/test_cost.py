"""Costs of a table's models, against counts by hand."""

from __future__ import annotations

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmdysample.reproduce.cost import measure_costs
from mmdysample.reproduce.results import load_costs
from mmdysample.reproduce.tables import load_tables

TINY = tuple(
    f'{split}_dataloader.dataset.{entry}'
    for split in ('train', 'val', 'test')
    for entry in (
        'data_root=scenes',
        'scenes.num_train=1',
        'scenes.num_val=1',
        'scenes.size=(64,96)',
    )
)


def test_costs_of_a_pyramid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = load_tables('demo')['faster_rcnn']
    path = measure_costs(table, table.runnable(['dysample', 'carafe']), tmp_path, TINY)
    costs = load_costs(tmp_path, table)
    assert list(costs) == ['nearest', 'carafe', 'dysample']  # the baseline comes along
    nearest, dysample = costs['nearest'], costs['dysample']
    assert nearest['upsampler_params'] == 0 and nearest['latency_ratio'] == 1
    # Three steps, each a 1x1 convolution from 64 to 2 x 4 groups x 4 positions, with biases.
    assert dysample['upsampler_params'] == 3 * (64 * 32 + 32)
    assert dysample['params'] - nearest['params'] == dysample['upsampler_params']
    # Per output pixel: projection, scope times offset, four corners of 64 channels; the maps
    # that are enlarged are 1/32, 1/16 and 1/8 of 64 x 96.
    pixels = 4 * (2 * 3 + 4 * 6 + 8 * 12)
    assert dysample['upsampler_macs'] == pixels * (2 * 4 * 64 + 2 * 4 + 4 * 64)
    assert dysample['image'] == [64, 96] and dysample['latency_ms'] > 0

    before = path.read_bytes()
    assert measure_costs(table, table.runnable(), tmp_path, TINY) == path
    assert path.read_bytes() == before  # measured once
