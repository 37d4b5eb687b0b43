"""Published DepthFormer checkpoints through the checkpoint converter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from mmdysample.engine.convert import convert_checkpoint
from mmdysample.engine.errors import RefusedCheckpointError

CONFIGS = Path(__file__).parents[2] / 'configs'
SMALL = CONFIGS / 'scenes' / 'depthformer_bilinear_10e_scenes.py'


@pytest.fixture
def published(tmp_path):
    """A checkpoint as the toolbox writes one from data-parallel training, with random weights."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(Config.fromfile(SMALL).model)
    state = {
        name: torch.randn(value.shape) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if not name.startswith('decode_head.loss_decode.')  # the toolbox does not save its count
    }
    checkpoint = dict(
        meta=dict(mmcv_version='1.3.13', iter=38400, epoch=1, CLASSES=None, PALETTE=None),
        state_dict={f'module.{name}': value for name, value in state.items()},
        optimizer=dict(state={}, param_groups=[dict(lr=6e-5)]),
    )
    file = tmp_path / 'published.pth'
    torch.save(checkpoint, file)
    return file, state


def config_without_warm_up(folder):
    config = Config.fromfile(SMALL)
    config.model.decode_head.loss_decode.warm_up_iters = 0
    config.dump(folder / 'config.py')
    return str(folder / 'config.py')


def test_keys_in_keys_out(published, tmp_path):
    source, state = published
    target = tmp_path / 'converted.pth'
    config = config_without_warm_up(tmp_path)
    conversion = convert_checkpoint(config, str(source), str(target))
    assert conversion.renamed == {f'module.{name}': name for name in state}
    assert not conversion.dropped and not conversion.filled and not conversion.added

    converted = torch.load(target, weights_only=True)
    assert set(converted['state_dict']) == set(state)
    assert all(torch.equal(converted['state_dict'][name], state[name]) for name in state)
    assert 'optimizer' not in converted
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(Config.fromfile(config).model)
    model.load_state_dict(converted['state_dict'], strict=True)


@pytest.mark.parametrize('change', ['missing', 'left over'])
def test_other_models_are_refused(published, tmp_path, change):
    source, _ = published
    key = 'module.neck.multi_att.value_proj.weight'
    checkpoint = torch.load(source, weights_only=True)
    value = checkpoint['state_dict'].pop(key)
    if change == 'left over':
        checkpoint['state_dict'].update({key: value, 'module.backbone.layer1.0.weight': value})
    torch.save(checkpoint, source)
    with pytest.raises(RefusedCheckpointError, match=change):
        convert_checkpoint(config_without_warm_up(tmp_path), str(source), str(tmp_path / 'out'))
