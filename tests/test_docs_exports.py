"""The tables of the page "Ship it" against the raw results that they were made from."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mmdysample import upsampler_names

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGE = (DOCS / 'ship_it.md').read_text()


def cells(marker: str) -> list[list[str]]:
    """The table below a marker, without its heading."""
    found = re.search(rf'<!-- {marker} -->\n\n((?:\|.*\n)+)', PAGE)
    assert found, f'the page has no table marked {marker!r}'
    _, _, *lines = found[1].splitlines()
    return [[cell.strip(' `') for cell in line.strip('|').split('|')] for line in lines]


def raw(name: str) -> dict:
    return json.loads((DOCS / f'benchmarks/{name}.json').read_text())


def test_models():
    results = raw('export')['results']
    rows = cells('models')
    assert {(name, upsampler) for name, upsampler, *_ in rows} == {
        (name, upsampler) for name, kinds in results.items() for upsampler in set(kinds) - {'stock'}
    }
    for name, upsampler, *stated in rows:
        case, stock = results[name][upsampler], results[name].get('stock', {})
        for runtime, cell in zip(('onnx', 'openvino', 'ncnn'), stated[:3], strict=True):
            if runtime not in case:
                assert cell == ''
            elif 'error' in case[runtime]:
                assert cell == 'refused'
            else:
                assert len(case[runtime]['worst']) >= 1 + 2 * (runtime != 'ncnn')
                assert cell == f'{max(case[runtime]["worst"].values()):.0e}'
        for runtime, cell in zip(('onnx', 'openvino'), stated[3:], strict=True):
            times = [one[runtime]['ms'] for one in (case, stock) if 'ms' in one.get(runtime, {})]
            assert cell == (f'{times[0] / times[1]:.2f}' if len(times) == 2 else '')


def test_upsamplers():
    types = raw('onnx_export')['types']
    stated = {name: values for name, *values in cells('upsamplers')}
    assert stated == {
        name: [f'{one:.0e}' if isinstance(one, float) else one for one in columns.values()]
        for name, columns in types.items()
    }
    assert set(stated) <= set(upsampler_names())


def test_precision():
    graphs = raw('export_precision')['graphs']
    rows = cells('precision')
    assert [row[0] for row in rows] == list(graphs)
    for name, means, worst, output in rows:
        moves = graphs[name]['positions']
        assert means == ', '.join(f'{move["mean"]:.4f}' for move in moves)
        assert worst == f'{max(move["worst"] for move in moves):.3f}'
        assert output == f'{graphs[name]["outputs"]:.3f}'


def test_trained():
    exports = raw('export_trained')['exports']
    evaluations = {
        'PyTorch': exports['float32']['evaluation']['pytorch'],
        'ONNX Runtime, float32': exports['float32']['evaluation']['runtime'],
        'ONNX Runtime, `--half': exports['float16']['evaluation']['runtime'],
        'ONNX Runtime, `--int8': exports['int8']['evaluation']['runtime'],
    }
    names = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75')
    assert {network: values for network, *values in cells('trained')} == {
        network: [f'{100 * metrics[name]:.1f}' for name in names]
        for network, metrics in evaluations.items()
    }
