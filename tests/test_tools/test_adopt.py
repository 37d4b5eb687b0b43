"""tools/adopt.py on trained tiny networks: nothing but upsamplers is new, and nothing is lost."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmdysample.engine import adopt as tool_module

SEGFORMER = """
_base_ = {base!r}
model = dict(decode_head=dict(
    _delete_=True, type='SegformerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3],
    channels=64, num_classes=2, dropout_ratio=0, norm_cfg=dict(type='BN'), align_corners={corners},
    loss_decode=dict(type='CrossEntropyLoss')))
"""


def adopt(config, checkpoint, out, upsample='dysample', *more):
    arguments = [config, checkpoint, '--upsample', upsample, '--out', out, *more]
    return tool_module.main([str(argument) for argument in arguments])


def load(config, checkpoint):
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).double().eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)['state_dict'])
    return model


def at_initial_positions(model):
    """Take the random offsets out: what remains must be the interpolation of before."""
    for name, parameter in model.named_parameters():
        if name.endswith(('.offset.weight', '.offset.bias')):
            torch.nn.init.zeros_(parameter)
    return model


@pytest.fixture
def segformer(configs, tmp_path):
    """A SegFormer head with mmseg's own upsampling, and a checkpoint with weights of its own."""

    def make(corners=False):
        path = tmp_path / 'segformer.py'
        path.write_text(SEGFORMER.format(base=str(configs['mmseg']), corners=corners))
        cfg = Config.fromfile(path)
        init_default_scope('mmseg')
        model = MODELS.build(cfg.model)
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'segformer.pth')
        return path, tmp_path / 'segformer.pth'

    return make


@pytest.mark.parametrize(
    'upsample',
    [
        *('dysample', 'dysample_plus', 'dysample_s', 'dysample_s_plus'),
        *('dysample_guided', 'dysample_context'),
    ],
)
def test_a_detector_goes_on_where_it_was(configs, trained, tmp_path, upsample):
    checkpoint = trained['mmdet'] / 'epoch_3.pth'
    assert adopt(configs['mmdet'], checkpoint, tmp_path, upsample) == 0
    (config,) = tmp_path.glob('*.py')
    (target,) = tmp_path.glob('*.pth')
    old, new = load(configs['mmdet'], checkpoint), load(config, target)
    before, after = old.state_dict(), new.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    added = set(after) - set(before)
    assert added and all(name.startswith('neck.upsample_modules.') for name in added)
    images = torch.randn(2, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        for ours, theirs in zip(at_initial_positions(new)(images)[0], old(images)[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_adopted_detector_trains_on(configs, trained, tool, tmp_path):
    assert adopt(configs['mmdet'], trained['mmdet'] / 'epoch_3.pth', tmp_path) == 0
    (config,) = tmp_path.glob('*.py')
    (start,) = tmp_path.glob('*.pth')
    before = torch.load(start, weights_only=False)['state_dict']
    assert tool('train', config, options=('train_cfg.max_epochs=1',)) == 0
    after = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    name = 'neck.upsample_modules.0.offset.weight'
    moved = (after[name] - before[name]).abs().max()
    assert 0 < moved < 0.01  # two steps of AdamW at 0.001 from where it started


def test_a_head_with_one_bilinear_resize_keeps_it(segformer, tmp_path):
    config, checkpoint = segformer()
    out = tmp_path / 'out'
    assert adopt(config, checkpoint, out, 'dysample_s_plus') == 0
    (new_config,) = out.glob('*.py')
    (target,) = out.glob('*.pth')
    old, new = load(config, checkpoint), load(new_config, target)
    assert type(new.decode_head).__name__ == 'UpsampleSegformerHead'
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = at_initial_positions(new)(images), old(images)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # positions are float32


def test_other_outputs_than_before_are_refused(segformer, tmp_path, capsys):
    """With align_corners an interpolation samples elsewhere."""
    out = tmp_path / 'out'
    assert adopt(*segformer(corners=True), out, 'dysample') == 2
    assert 'decode_head would not give its old outputs' in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        (dict(upsample='carafe'), 'its kernels are drawn at random'),
        (dict(upsample='dysample_x'), "unknown upsampler type 'dysample_x'"),
        (dict(more=('--where', 'bbox_head')), 'bbox_head has no upsampler'),
        (dict(config='mmseg'), 'the checkpoint does not fit the config'),
    ],
    ids=['carafe', 'misspelt', 'where', 'checkpoint'],
)
def test_what_cannot_be_adopted_is_named(
    configs, trained, tmp_path, capsys, changes, reason, segformer
):
    config = segformer()[0] if changes.get('config') else configs['mmdet']
    out = tmp_path / 'out'
    status = adopt(
        config,
        trained['mmdet'] / 'epoch_3.pth',
        out,
        changes.get('upsample', 'dysample'),
        *changes.get('more', ()),
    )
    assert status == 2
    assert reason in capsys.readouterr().err
    assert not out.exists()
