"""The form of DySample's sampling without GridSample, against float64 loops and in ONNX Runtime."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from oracles.dysample import dysample_loops, random_case

from mmdysample.ops import dysample
from mmdysample.upsamplers import DySample

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

CASES = {
    'one group': dict(groups=1),
    'positions far outside': dict(reach=20.0),
    'pixel shuffle first': dict(style='pl', groups=4),
    'cut': dict(cut=(1, 1), batch=2),
    'factor 3, cut': dict(scale_factor=3, cut=(2, 1)),
    'dynamic scope': dict(dynamic=True, batch=2),
    'nearest start': dict(init='nearest', style='pl'),
    'one pixel': dict(height=1, width=1),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_it_samples_where_the_paper_says(case):
    tensors, options, _ = random_case(**case)
    got = dysample(**tensors, **options, backend='gather')
    assert (got - dysample_loops(**tensors, **options)).abs().max() < 1e-5


def test_nan_stays_in_its_pixel():
    tensors, options, _ = random_case(batch=2)
    tensors['offset'][0, 0, 1, 2] = torch.nan
    got = dysample(**tensors, **options, backend='gather')
    wanted = dysample_loops(**tensors, **options)
    assert torch.equal(got.isnan(), wanted.isnan()) and got.isnan().any()
    assert (got - wanted).nan_to_num().abs().max() < 1e-5


def export(path, backend, free, style='lp', dyscope=False):
    up = DySample(16, style=style, dyscope=dyscope, backend=backend).eval()
    for parameter in up.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 16, 5, 7)
    auto = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        up,
        (x,),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: auto, 2: auto, 3: auto},) if free else None,
    )
    return up, x


@pytest.mark.parametrize('free', [False, True], ids=['fixed', 'free'])
@pytest.mark.parametrize('style', ['lp', 'pl'])
def test_the_graph_has_no_grid_sample(style, free, tmp_path):
    path = tmp_path / 'up.onnx'
    up, x = export(path, 'gather', free, style, dyscope=style == 'pl')
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert not {'GridSample', 'GatherElements', 'GatherND', 'ScatterND'} & set(kinds)
    session = onnxruntime.InferenceSession(path)
    for example in (x, torch.randn(1, 16, 3, 4)) if free else (x,):
        (got,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
        with torch.no_grad():
            up.backend = 'torch'
            wanted = up(example)
        assert (torch.from_numpy(got) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize('backend', ['torch', 'gather'])
def test_fixed_sizes_leave_no_computed_positions(backend, tmp_path):
    """The initial positions are constants there: nothing asks for a shape or counts pixels."""
    export(tmp_path / 'up.onnx', backend, free=False)
    kinds = {node.op_type for node in onnx.load(tmp_path / 'up.onnx').graph.node}
    assert not kinds & {'Range', 'Shape'}
