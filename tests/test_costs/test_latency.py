"""The latency tool on maps small enough to measure in no time."""

from __future__ import annotations

import json

import pytest
import torch

from mmdysample.costs import candidates, latency


def test_a_run_writes_rows_table_and_figure(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(latency.WORKLOADS, 'paper', ((1, 3, 4),))
    monkeypatch.setitem(latency.WORKLOADS, 'pyramid', ((1, 3, 4), (1, 6, 7)))
    preset = dict(sampling=('pyramid',), upsamplers=('paper',), dtypes=('float32',), threads=(1, 2))
    monkeypatch.setitem(latency.PRESETS, 'cpu', preset)
    monkeypatch.setattr(latency, 'copy_bandwidth', lambda *_: 1e9)
    out, figure = tmp_path / 'result.json', tmp_path / 'figure.png'
    latency.main(['--preset', 'cpu', '--rounds', '2', '--out', str(out), '--plot', str(figure)])
    result = json.loads(out.read_text())
    assert {'command', 'device', 'versions', 'revision', 'seed'} <= set(result)
    names = {(row['kind'], row['candidate']) for row in result['rows']}
    assert {('sampling', 'published'), ('sampling', 'dysample (torch)')} <= names
    assert {('upsamplers', 'carafe'), ('upsamplers', 'dysample_s_plus')} <= names
    for row in result['rows']:
        low, high = row['quartiles_ms']
        assert 0 < low <= row['median_ms'] <= high
        assert row['to_bilinear'] == 1 or row['candidate'] != 'bilinear'
    assert '| dysample (torch) |' in capsys.readouterr().out
    assert figure.stat().st_size > 0


def test_nothing_is_timed_that_computes_something_else(monkeypatch):
    candidates.check(torch.device('cpu'), torch.float32)
    right = candidates.gather_sampling
    monkeypatch.setattr(candidates, 'gather_sampling', lambda *a: right(*a) + 1e-3)
    with pytest.raises(RuntimeError, match=r'gather in torch\.float32 is off by 0\.001'):
        candidates.check(torch.device('cpu'), torch.float32)


def test_rivals_run_in_their_best_form_where_there_is_one(monkeypatch):
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    assert list(candidates.other_implementations(cpu)) == ['published dysample']
    monkeypatch.setattr(candidates, 'mmcv_has_cuda', lambda: False)
    monkeypatch.setattr(candidates, 'HAS_TRITON', True)
    names = ['published dysample', 'carafe (triton)']
    assert list(candidates.other_implementations(cuda)) == names
    pack = pytest.importorskip('mmcv.ops').CARAFEPack
    monkeypatch.setattr(candidates, 'mmcv_has_cuda', lambda: True)
    modules = candidates.other_implementations(cuda)
    assert list(modules) == [*names, 'carafe (mmcv)']
    assert isinstance(modules['carafe (mmcv)'], pack)
    assert modules['carafe (triton)'].backend == 'triton'
