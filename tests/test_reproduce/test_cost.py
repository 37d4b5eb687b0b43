"""Costs of models, against counts by hand."""

from __future__ import annotations

import os

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmdysample.reproduce import run
from mmdysample.reproduce.cost import load_cost, measure_cost
from mmdysample.reproduce.job import Job, load_row_config
from mmdysample.reproduce.results import cost_file
from mmdysample.reproduce.run import measure_costs
from mmdysample.reproduce.tables import load_tables

TABLE = load_tables('demo')['faster_rcnn']
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
    for row in ('nearest', 'dysample'):
        measure_cost(TABLE, row, load_row_config(TABLE.rows[row], TINY), tmp_path, 'cpu')
    nearest, dysample = (load_cost(tmp_path, TABLE, row) for row in ('nearest', 'dysample'))
    assert nearest['upsampler_params'] == 0
    # Three steps, each a 1x1 convolution from 64 to 2 x 4 groups x 4 positions, with biases.
    assert dysample['upsampler_params'] == 3 * (64 * 32 + 32)
    assert dysample['params'] - nearest['params'] == dysample['upsampler_params']
    # Per output pixel: projection, scope times offset, four corners of 64 channels; the maps
    # that are enlarged are 1/32, 1/16 and 1/8 of 64 x 96.
    pixels = 4 * (2 * 3 + 4 * 6 + 8 * 12)
    assert dysample['upsampler_macs'] == pixels * (2 * 4 * 64 + 2 * 4 + 4 * 64)
    assert dysample['image'] == [64, 96] and dysample['latency_ms'] > 0


def measure_or_die(table, row, *rest):
    if row == 'dysample_s_plus':
        os._exit(1)
    measure_cost(table, row, *rest)


def test_a_model_that_cannot_be_measured_stops_no_other(tmp_path, monkeypatch):
    """Neither one that raises nor one that takes its process with it; rows not asked for stay."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, 'measure_cost', measure_or_die)
    jobs = [
        Job(TABLE, TABLE.rows['carafe'], 0, tmp_path, overrides=(*TINY, 'model.neck.type=Nothing')),
        Job(TABLE, TABLE.rows['dysample_s_plus'], 0, tmp_path, overrides=TINY),
        *(Job(TABLE, TABLE.rows['dysample'], seed, tmp_path, overrides=TINY) for seed in (0, 1)),
    ]
    lines = []
    measure_costs(jobs, '', lines.append)
    told = [f'no cost of faster_rcnn/{row}' for row in ('carafe', 'dysample_s_plus')]
    assert [line.split(':')[0] for line in lines] == told
    assert load_cost(tmp_path, TABLE, 'dysample')
    assert not any(cost_file(tmp_path, TABLE, row).exists() for row in ('nearest', 'carafe'))
    before = cost_file(tmp_path, TABLE, 'dysample').read_bytes()
    measure_costs(jobs[2:], '', lines.append)  # known: not measured again
    assert cost_file(tmp_path, TABLE, 'dysample').read_bytes() == before
