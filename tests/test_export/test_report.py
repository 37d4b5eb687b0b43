"""The report behind the page "Ship it", with one tiny model in place of its models."""

from __future__ import annotations

import json

import pytest

for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'ncnn', 'pnnx'):
    pytest.importorskip(package)
report = pytest.importorskip('mmdysample.export.report')


def test_it_exports_once_and_times_again(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(report, 'CONFIGS', {'Tiny': str(tiny('segformer_r18_tiny')[0])})
    monkeypatch.setattr(report, '_MEMBERS', ('dysample',))
    monkeypatch.setattr(report, '_WITH_CARAFE', ())
    page = tmp_path / 'ship_it.md'
    page.write_text('Before.\n<!-- models -->\nold\n<!-- end of models -->\nAfter.\n')
    command = ['--graphs', str(tmp_path / 'graphs'), '--docs', str(tmp_path), '--rounds']
    assert report.main([*command, '0']) == 0
    (line,) = (line for line in page.read_text().splitlines() if 'Tiny' in line)
    assert line.startswith('| Tiny | `dysample` |') and line.endswith('|  |  |  |')
    monkeypatch.setattr(report, 'check_case', None)  # what has graphs is not exported again
    assert report.main([*command, '2']) == 0
    text = page.read_text()
    assert text.startswith('Before.\n') and text.endswith('After.\n') and 'old' not in text
    results = json.loads((tmp_path / 'benchmarks/export.json').read_text())['results']['Tiny']
    for runtime, cell in zip(('onnx', 'openvino'), text.split('|')[-3:-1], strict=True):
        assert len(results['dysample'][runtime]['worst']) == 3
        ratio = results['dysample'][runtime]['ms'] / results['stock'][runtime]['ms']
        assert float(cell) == pytest.approx(ratio, abs=0.005)
