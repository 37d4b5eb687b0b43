"""Whole models: written, run in their runtime, compared, and refused where they differ."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
pytest.importorskip('mmengine')
command = pytest.importorskip('mmdysample.export.command')
runtimes = pytest.importorskip('mmdysample.export.runtimes')

HAS = {name: find_spec(name) is not None for name in ('openvino', 'ncnn', 'pnnx')}


def run(*args) -> int:
    return command.main([*map(str, args)])


def outputs(folder) -> dict[str, dict[str, float]]:
    about = json.loads((folder / 'model.json').read_text())
    return {f'{check["part"]}/{check["output"]}': check['worst'] for check in about['check']}


@pytest.fixture(scope='module')
def detector(tiny, tmp_path_factory):
    """A detector in ONNX with free sizes, its config and its checkpoint."""
    config, checkpoint = tiny('faster-rcnn_r18_fpn_tiny')
    folder = tmp_path_factory.mktemp('detector') / 'onnx'
    assert run(config, checkpoint, '--out', folder, '--dynamic') == 0
    return folder, config, checkpoint


def test_a_detector_equals_pytorch_at_sizes_it_has_not_seen(detector):
    differences = outputs(detector[0])
    names = {name.rpartition('.')[0] for name in differences}
    assert names == {
        'network/pyramid',
        'network/rpn_head.0',
        'network/rpn_head.1',
        'bbox_head/head',
    }
    for worst in differences.values():
        assert len(worst) == 3 and max(worst.values()) < 1e-4
    assert '1x3x97x131' in differences['network/pyramid.0']


def test_the_file_says_what_it_is(detector):
    folder, *_ = detector
    about = json.loads((folder / 'model.json').read_text())
    assert about['dataset_meta'] == dict(classes=[f'class {index}' for index in range(80)])
    assert about['size'] == [64, 96] and about['input']['layout'] == 'NCHW'
    assert about['input']['channels'] == 'RGB' and len(about['input']['mean']) == 3
    assert "'UpsampleFPN'" in about['config']
    graph = onnx.load(folder / 'network.onnx')
    (entry,) = (item for item in graph.metadata_props if item.key == 'mmdysample')
    assert json.loads(entry.value) == about


def test_predictions_come_from_the_runtime(detector):
    """The same boxes as PyTorch's, though every weight in PyTorch is NaN."""
    from mmdet.structures import DetDataSample
    from mmengine.config import Config

    folder, config, checkpoint = detector
    exported = command.load_exported(folder)
    assert all(parameter.isnan().all() for parameter in exported.parameters())
    image = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)
    cfg = Config.fromfile(config)
    results = []
    for model in (command.load_model(cfg, str(checkpoint)), exported):
        shape = dict(img_shape=(70, 90), ori_shape=(70, 90), scale_factor=(1, 1))
        sample = DetDataSample(metainfo=shape)
        with torch.no_grad():
            (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
        results.append(result.pred_instances)
    wanted, got = results
    assert len(wanted) > 5 and len(got) == len(wanted)
    torch.testing.assert_close(got.bboxes, wanted.bboxes, atol=0.01, rtol=0)
    torch.testing.assert_close(got.scores, wanted.scores, atol=1e-4, rtol=0)


def spoil(path) -> None:
    """Change one constant of DySample's arithmetic in a graph by a tenth."""
    graph = onnx.load(path)
    floats = [
        tensor
        for tensor in graph.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and 'offset.weight' in tensor.name
    ]
    weight = onnx.numpy_helper.to_array(floats[0])
    floats[0].CopyFrom(onnx.numpy_helper.from_array(np.float32(1.1) * weight, floats[0].name))
    onnx.save(graph, path)


@pytest.fixture
def wrong_writer(monkeypatch):
    """An exporter that gets one constant wrong."""
    real = runtimes.write_onnx

    def write(part, example, path, *args):
        real(part, example, path, *args)
        if part.name == 'network':
            spoil(path)

    monkeypatch.setattr('mmdysample.export.export.write_onnx', write)


def test_a_wrong_constant_is_refused(tiny, wrong_writer, tmp_path, capsys):
    config, checkpoint = tiny('segformer_r18_tiny')
    assert run(config, checkpoint, '--out', tmp_path / 'onnx') == 2
    message = capsys.readouterr().err
    assert 'does not compute what PyTorch does' in message and message.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_keeps_the_earlier_one(tiny, tmp_path, monkeypatch, capsys):
    config, checkpoint = tiny('segformer_r18_tiny')
    out = tmp_path / 'onnx'
    assert run(config, checkpoint, '--out', out, '--sampling', 'gather') == 0
    kinds = {node.op_type for node in onnx.load(out / 'network.onnx').graph.node}
    assert 'GridSample' not in kinds
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run(config, checkpoint, '--out', out, '--tolerance', 1e-12) == 2
    assert 'allowed are 1e-12' in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.skipif(not HAS['openvino'], reason='openvino is not installed: extra export')
def test_openvino_equals_pytorch_with_free_sizes(tiny, tmp_path):
    config, checkpoint = tiny('segformer_r18_tiny', 'dysample_s_plus')
    out = tmp_path / 'openvino'
    assert run(config, checkpoint, '--to', 'openvino', '--out', out, '--dynamic') == 0
    assert sorted(path.name for path in out.iterdir()) == [
        'model.json',
        'network.bin',
        'network.xml',
    ]
    assert max(outputs(out)['network/decode_head'].values()) < 1e-4


@pytest.mark.skipif(not (HAS['ncnn'] and HAS['pnnx']), reason='no ncnn, pnnx: extra export')
def test_ncnn_equals_pytorch_at_a_fixed_size(tiny, tmp_path, capsys):
    config, checkpoint = tiny('faster-rcnn_r18_fpn_tiny')
    out = tmp_path / 'ncnn'
    assert run(config, checkpoint, '--to', 'ncnn', '--out', out, '--dynamic') == 2
    assert 'fixed sizes' in capsys.readouterr().err
    assert run(config, checkpoint, '--to', 'ncnn', '--out', out) == 0
    assert {max(worst.values()) < 1e-4 for worst in outputs(out).values()} == {True}


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0)
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name in 'abc':
        pixels = noise.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 64)).save(folder / f'{name}.png')
    return folder


@pytest.mark.parametrize('precision', ['half', 'int8'])
def test_lower_precision_leaves_the_sampling_in_float32(precision, tiny, pictures, tmp_path):
    config, checkpoint = tiny('segformer_r18_tiny', 'dysample_plus')
    out = tmp_path / precision
    option = ['--half'] if precision == 'half' else ['--int8', pictures]
    assert run(config, checkpoint, '--out', out, *option) == 0
    graph = onnx.load(out / 'network.onnx').graph
    assert max(outputs(out)['network/decode_head'].values()) > 1e-6  # it is not float32 again
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    lowered = onnx.TensorProto.FLOAT16 if precision == 'half' else onnx.TensorProto.INT8
    weights = {name: kind for name, kind in types.items() if 'conv' in name and 'weight' in name}
    assert lowered in weights.values()
    projections = {name for name in types if '.offset.' in name or '.scope.' in name}
    assert len(projections) == 6 * 3  # six upsamplers: two weights and a bias
    assert {types[name] for name in projections} == {onnx.TensorProto.FLOAT}


MISTAKES = {
    'no such config': (['nowhere.py', 'x.pth'], 'nowhere.py does not exist'),
    'no such checkpoint': (['{config}', 'nowhere.pth'], 'nowhere.pth does not exist'),
    'opset without GridSample': (['{config}', '{checkpoint}', '--opset', '11'], '16 to 23'),
    'no calibration images': (['{config}', '{checkpoint}', '--int8', 'nowhere'], 'nowhere'),
    'a folder of something else': (
        ['{config}', '{checkpoint}', '--out', '{folder}'],
        'not replaced',
    ),
    'another model': (['{config}', '{other}'], 'does not fit the config'),
}


@pytest.mark.parametrize(('args', 'reason'), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_one_sentence(detector, tiny, args, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = dict(config=detector[1], checkpoint=detector[2], folder=detector[1].parent)
    if '{other}' in args:
        names['other'] = tiny('segformer_r18_tiny')[1]
    assert run(*(arg.format(**names) for arg in args)) == 2
    message = capsys.readouterr().err
    assert message.startswith('error: ') and reason in message and message.count('\n') == 1
