"""Every segmentation config builds, trains for one step and tests for one step at reduced size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')
from file_names import upsampler_in_name
from mmengine.config import Config
from mmengine.fileio import load
from segmentors import SIZE, batch, predict_step, train_step

ROOT = Path(__file__).parents[1] / 'configs'
FOLDERS = ('segformer', 'upernet', 'maskformer', 'sem_fpn', 'camvid')
CONFIGS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob('*.py')) + sorted(
    path for folder in ('demo', 'scenes') for path in (ROOT / folder).glob('segformer*.py')
)

pytestmark = pytest.mark.usefixtures('mmseg_scope')


def batch_of(num_classes):
    """With labels of a few classes and an ignored part."""
    labels = torch.randint(0, num_classes, (2, 1, SIZE[0] // 16, SIZE[1] // 16))
    labels = labels.repeat_interleave(16, -1).repeat_interleave(16, -2)
    labels[..., :8] = 255
    return batch('gt_sem_seg', labels)


every_config = pytest.mark.parametrize(
    'path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}'
)


@every_config
def test_file_name_says_the_resampling(path):
    model = Config.fromfile(path).model
    host = model.get('neck') or model.decode_head
    assert host.type.removeprefix('mmdet.').startswith(('Upsample', 'Resample'))
    assert host.upsample_cfg.type == upsampler_in_name(path)
    if 'downsample_cfg' in host:
        assert f'_pafpn-{host.downsample_cfg.type}_' in path.stem


@every_config
def test_config_trains_and_tests(path):
    config = Config.fromfile(path)
    num_classes = config.model.decode_head.num_classes
    model, moved = train_step(config, batch_of(num_classes))
    assert any(moved.values())
    _, results = predict_step(config, model, batch_of(num_classes), num_classes)
    assert {'mIoU', 'bIoU'} <= set(results)


@pytest.mark.parametrize('folder', ['segformer', 'upernet', 'maskformer', 'sem_fpn', 'depthformer'])
def test_metafile_lists_the_folder(folder):
    assert f'configs/{folder}/metafile.yml' in load(ROOT.parent / 'model-index.yml')['Import']
    models = load(ROOT / folder / 'metafile.yml')['Models']
    assert sorted(model['Config'] for model in models) == [
        f'configs/{folder}/{path.name}' for path in sorted((ROOT / folder).glob('*.py'))
    ]
    for model in models:
        path = ROOT.parent / model['Config']
        assert model['Name'] == path.stem
        assert model['Metadata']['Upsampler'] == upsampler_in_name(path)
        for result in model.get('Results', []):
            assert result['Source'].startswith('https://')
            assert set(result.get('Recalled', [])) <= set(result['Metrics'])
