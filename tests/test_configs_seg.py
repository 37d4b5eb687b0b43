"""Every segmentation config builds, trains for one step and tests for one step at reduced size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')
from file_names import upsampler_in_name
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.fileio import load
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

ROOT = Path(__file__).parents[1] / 'configs'
FOLDERS = ('segformer', 'upernet', 'maskformer', 'sem_fpn', 'camvid')
CONFIGS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob('*.py')) + sorted(
    path for folder in ('demo', 'scenes') for path in (ROOT / folder).glob('segformer*.py')
)
SIZE = (64, 96)


pytestmark = pytest.mark.usefixtures('mmseg_scope')


def shrink(model):
    """Make a model quick to build and run, in depth and input size; its widths stay.

    Args:
        model (ConfigDict): The model of a config, changed in place.
    """
    model.data_preprocessor.size = SIZE
    model.pretrained = None
    backbone = model.backbone
    backbone.init_cfg = None
    if backbone.type == 'MixVisionTransformer':
        backbone.num_layers = [1, 1, 1, 1]
    elif backbone.type == 'SwinTransformer':
        backbone.depths = [1, 1, 1, 1]
    if model.test_cfg.mode == 'slide':
        model.test_cfg.update(crop_size=SIZE, stride=SIZE)
    if 'transformer_decoder' in model.decode_head:
        model.decode_head.transformer_decoder.num_layers = 1


def batch(num_classes):
    """Two images of random pixels, with labels of a few classes and an ignored part."""
    labels = torch.randint(0, num_classes, (2, 1, SIZE[0] // 16, SIZE[1] // 16))
    labels = labels.repeat_interleave(16, -1).repeat_interleave(16, -2)
    labels[..., :8] = 255
    shape = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE)
    samples = [SegDataSample(metainfo=shape, gt_sem_seg=PixelData(data=x)) for x in labels]
    return dict(inputs=[*torch.randint(0, 256, (2, 3, *SIZE)).byte()], data_samples=samples)


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
    assert config.default_scope == 'mmseg'
    assert 'mmdysample' in config.custom_imports.imports
    shrink(config.model)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    model.init_weights()

    num_classes = config.model.decode_head.num_classes
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    before = [parameter.detach().clone() for parameter in model.decode_head.parameters()]
    model.train()
    log = model.train_step(batch(num_classes), optimizer)
    assert torch.isfinite(log['loss'])
    after = model.decode_head.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))

    model.eval()
    with torch.no_grad():
        samples = model.test_step(batch(num_classes))
    evaluator = Evaluator(config.test_evaluator)
    evaluator.dataset_meta = dict(classes=[str(i) for i in range(num_classes)])
    evaluator.process(samples)
    results = evaluator.evaluate(len(samples))
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
