"""The throughput tool on images small enough to measure in no time."""

from __future__ import annotations

import json

import pytest
import torch

from mmdysample.costs import throughput
from mmdysample.costs.models import NETWORKS
from mmdysample.costs.stopwatch import speeds

for package in ('mmdet', 'mmseg'):
    pytest.importorskip(package)

CPU = torch.device('cpu')
SEGFORMER = next(network for network in NETWORKS if network.name == 'SegFormer-B1')
DETECTOR = next(network for network in NETWORKS if network.name == 'Faster-R-CNN-R50')


def test_a_run_times_every_model_and_pass(tmp_path, capsys):
    out = tmp_path / 'result.json'
    options = '--device cpu --shrink 8 --rounds 1 --training --upsamplers dysample nearest'
    throughput.main([*options.split(), '--out', str(out)])
    result = json.loads(out.read_text())
    assert {'command', 'device', 'versions', 'revision', 'seed'} <= set(result)
    expected = [
        (model, mode, layout, upsampler)
        for model, upsamplers in (
            ('SegFormer-B1', ('bilinear', 'dysample', 'nearest')),
            ('Faster-R-CNN-R50', ('nearest', 'dysample')),
        )
        for mode in ('inference', 'training')
        for layout in ('nchw', 'channels_last')
        for upsampler in upsamplers
    ]
    keys = ('model', 'mode', 'memory_format', 'upsampler')
    rows = {tuple(row[key] for key in keys): row for row in result['rows']}
    assert list(rows) == expected
    for row in rows.values():
        assert row['images_per_s'] == pytest.approx(1e3 / row['median_ms'])
        baseline = 'bilinear' if row['model'] == 'SegFormer-B1' else 'nearest'
        stock = rows[row['model'], row['mode'], row['memory_format'], baseline]
        assert row['to_baseline'] == pytest.approx(stock['median_ms'] / row['median_ms'])
    assert out.with_suffix('.md').read_text() == capsys.readouterr().out


def test_speeds_are_compared_within_a_round():
    stock, ours = speeds([[1.0, 10.0, 4.0], [2.0, 5.0, 8.0]])
    assert stock == dict(to_baseline=1.0, quartiles_to_baseline=[1.0, 1.0])
    # 0.5, 2 and 0.5 of the stock model's speed, where the medians of the times are 4 and 5.
    assert ours == dict(to_baseline=0.5, quartiles_to_baseline=[0.5, 1.25])


def test_models_differ_in_their_upsamplers_alone():
    stock, ours = throughput.build_models(SEGFORMER, ('bilinear', 'dysample'), CPU)
    kept, weights = stock.state_dict(), ours.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in kept.items())
    added = set(weights) - set(kept)
    assert added
    assert all('upsample' in name for name in added)


@pytest.mark.parametrize('mode', ['predict', 'loss'])
def test_detectors_are_timed_on_the_same_boxes_and_all_learn(mode):
    models = throughput.build_models(DETECTOR, ('nearest', 'dysample'), CPU)
    data = throughput.random_batch(DETECTOR, 1, (64, 96), CPU)
    boxes = []
    for model in models:
        pool = model.roi_head.bbox_roi_extractor
        pool.register_forward_pre_hook(lambda _, inputs: boxes.append(inputs[1].detach()))
        if mode == 'loss':  # which boxes are trained on is drawn, so it takes all of them
            model.train().roi_head.bbox_sampler.num = 10**4
    models[0](**data, mode=mode)
    models[1](**data, mode=mode)
    assert not _same_boxes(*boxes)
    boxes.clear()
    throughput.share_proposals(models, data['inputs'])
    models[0](**data, mode=mode)
    outputs = models[1](**data, mode=mode)
    assert _same_boxes(*boxes)
    if mode == 'loss':
        models[1].parse_losses(outputs)[0].backward()
        assert all(p.grad is not None for p in models[1].rpn_head.parameters())


def _same_boxes(one, other):
    if one.shape != other.shape:
        return False
    return torch.allclose(*(boxes[boxes.sum(1).argsort()] for boxes in (one, other)), atol=1e-2)


def test_a_training_step_moves_every_trained_weight_of_an_upsampler():
    (model,) = throughput.build_models(SEGFORMER, ('dysample',), CPU)
    data = throughput.random_batch(SEGFORMER, 2, (64, 64), CPU)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1.0)
    throughput.train(model, optimizer, data)
    moved = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    assert {name for name in before if 'upsample' in name} <= moved


def test_models_and_images_are_laid_out_as_asked(monkeypatch):
    seen = []

    def note(model, data):
        seen.append((model.backbone.layers[0][0].projection.weight, data['inputs']))

    monkeypatch.setattr(throughput, 'infer', note)
    throughput.time_network(SEGFORMER, ('bilinear',), 1, (64, 64), 1, CPU, layout='channels_last')
    for tensor in seen[0]:
        assert tensor.is_contiguous(memory_format=torch.channels_last)
