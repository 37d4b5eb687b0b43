"""The report of the kernels, as far as it can run without a GPU."""

from __future__ import annotations

import json

import pytest
import torch

from mmdysample.costs import gpu_checks, gpu_report
from mmdysample.ops import dysample
from mmdysample.ops.backend import HAS_TRITON, INTERPRETED

CPU = torch.device('cpu')


def test_the_cpu_preset_checks_then_measures(tmp_path, capsys):
    out = tmp_path / 'new' / 'report.json'
    assert gpu_report.main(['--preset', 'cpu', '--out', str(out)]) == 0
    result = json.loads(out.read_text())
    assert {'command', 'device', 'versions', 'revision', 'seed'} <= set(result)
    assert result['backend'] == ('triton' if HAS_TRITON and INTERPRETED else 'torch')
    checks = [row['check'] for row in result['checks']]
    assert checks == 3 * ['dysample'] + 3 * ['reassemble'] + 3 * ['window_similarity'] + [
        'deterministic'
    ]
    assert all(row['passed'] for row in result['checks'])
    assert any(row['error'] > 0 for row in result['checks'])  # float32 is not float64
    timed = {(row['memory_format'], row['direction'], row['candidate']) for row in result['rows']}
    for layout in ('nchw', 'channels_last'):
        for way in ('forward', 'forward_backward'):
            for name in ('bilinear', 'nearest', 'published', 'dysample (torch)'):
                assert (layout, way, name) in timed
            assert (layout, way, 'reassemble (torch)') in timed
    assert out.with_suffix('.md').read_text() == capsys.readouterr().out


def wrong_forward(x, offset, *rest, backend, **options):
    out = dysample(x, offset, *rest, backend='torch', **options)
    return out * (1 + 1e-4) if backend == 'broken' else out


def wrong_gradient(x, offset, *rest, backend, **options):
    if backend == 'broken':
        offset = offset + 1e-3 * (offset - offset.detach())
    return dysample(x, offset, *rest, backend='torch', **options)


@pytest.mark.parametrize('operator', [wrong_forward, wrong_gradient])
def test_an_error_in_the_result_or_a_gradient_is_found(operator):
    x, offset = torch.randn(1, 8, 4, 5), torch.randn(1, 32, 4, 5)
    assert gpu_checks.compare(operator, [x, offset], 'torch', groups=4) < gpu_checks.TOLERANCE
    assert gpu_checks.compare(operator, [x, offset], 'broken', groups=4) > gpu_checks.TOLERANCE


def test_nan_and_a_wrong_shape_are_errors():
    def bad(x, backend):
        return {'nan': x * torch.nan, 'shape': x[..., 1:], 'torch': x}[backend]

    for backend in ('nan', 'shape'):
        assert gpu_checks.compare(bad, [torch.ones(2, 3)], backend) == float('inf')


def test_failures_are_reported_and_do_not_stop_the_rest(tmp_path, monkeypatch, capsys):
    def failing(*tensors, backend, **options):
        if backend != 'torch':
            raise RuntimeError('no such instruction')
        return dysample(*tensors, backend=backend, **options)

    failing.__name__ = 'dysample'
    monkeypatch.setattr(gpu_checks, 'dysample', failing)
    monkeypatch.setattr(gpu_report, 'HAS_TRITON', True)
    monkeypatch.setattr(gpu_report, 'INTERPRETED', True)
    out = tmp_path / 'report.json'
    assert gpu_report.main(['--preset', 'cpu', '--budget', '0', '--out', str(out)]) == 1
    checks = json.loads(out.read_text())['checks']
    failed = {row['check'] for row in checks if not row['passed']}
    assert {'dysample', 'deterministic'} <= failed
    assert "RuntimeError('no such instruction')" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_the_gpu_preset_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        gpu_report.main(['--preset', 'gpu', '--out', str(tmp_path / 'x.json')])
    assert stop.value.code == 2
    assert 'finds no GPU' in capsys.readouterr().err
