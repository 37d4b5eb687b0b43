"""Every depth config builds, trains for one step and tests for one step at reduced size."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmseg')
from file_names import upsampler_in_name
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted((ROOT / 'depthformer').glob('*.py')) + sorted(
    path
    for pattern in ('demo/densedepth*.py', 'scenes/depthformer*.py')
    for path in ROOT.glob(pattern)
)
SIZE = (64, 96)
BASELINE = ROOT / 'depthformer' / 'depthformer_swin-t_bilinear_2xb8-38k_nyu-416x544.py'


pytestmark = pytest.mark.usefixtures('mmseg_scope')


def shrink(model):
    """Make a model quick to build and run: fewer blocks, and Swin-L no wider than Swin-T.

    Args:
        model (ConfigDict): The model of a config, changed in place.
    """
    model.data_preprocessor.size = SIZE
    backbone = model.backbone
    if backbone.type == 'ResNetV1c':  # of the demo, which is small
        return
    backbone.init_cfg = None
    backbone.depths = [1, 1, 1, 1]
    if backbone.embed_dims > 96:
        backbone.update(embed_dims=96, num_heads=[3, 6, 12, 24])
        model.neck.update(in_channels=[64, 96, 192, 384, 768], embedding_dim=64)
        model.decode_head.in_channels = model.neck.in_channels


def batch(max_depth):
    """Two pictures of random pixels, with depth but for a strip without."""
    depth = torch.rand(2, 1, *SIZE) * max_depth
    depth[..., :8] = 0
    shape = dict(img_shape=SIZE, ori_shape=SIZE)
    samples = [SegDataSample(metainfo=shape, gt_depth_map=PixelData(data=x)) for x in depth]
    return dict(inputs=[*torch.randint(0, 256, (2, 3, *SIZE)).byte()], data_samples=samples)


every_config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


@every_config
def test_file_name_says_upsampler_and_batch(path):
    config = Config.fromfile(path)
    assert config.model.decode_head.upsample_cfg.type == upsampler_in_name(path)
    batch = re.search(r'_(\d)xb(\d)-', path.stem)
    if batch:
        gpus, pictures = map(int, batch.groups())
        assert config.train_dataloader.batch_size == pictures
        assert config.auto_scale_lr.base_batch_size == gpus * pictures == 16


@every_config
def test_config_trains_and_tests(path):
    config = Config.fromfile(path)
    assert config.default_scope == 'mmseg'
    assert 'mmdysample' in config.custom_imports.imports
    max_depth = config.model.decode_head.max_depth
    shrink(config.model)
    model = MODELS.build(config.model)
    model.init_weights()

    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    for group in optimizer.param_groups:
        group['weight_decay'] = 0  # what moves then has a gradient
    head = {name: p for name, p in model.decode_head.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in head.items()}
    model.train()
    log = model.train_step(batch(max_depth), optimizer)
    assert torch.isfinite(log['loss'])
    still = [name for name, p in head.items() if torch.equal(p, before[name])]
    assert head and not still

    model.eval()
    with torch.no_grad():
        samples = model.test_step(batch(max_depth))
    for sample in samples:
        depth = sample.pred_depth_map.data
        assert depth.shape == (1, *SIZE)
        assert depth.min() >= 1e-3 and depth.max() <= max_depth
    config.test_evaluator.pop('crop_type', None)  # made for the real size
    evaluator = Evaluator(config.test_evaluator)
    evaluator.process(samples)
    results = evaluator.evaluate(len(samples))
    assert {'abs_rel', 'rmse', 'd1'} <= set(results)
    assert all(math.isfinite(value) for value in results.values())


def test_schedule_is_the_published_one():
    """The toolbox multiplies a cosine over all steps by a linear warm-up over the first third."""
    config = Config.fromfile(BASELINE)
    base, total, warm_up = 6e-5, 38400, 12800
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([parameter], lr=config.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(cfg, optimizer=optimizer)) for cfg in config.param_scheduler
    ]
    wanted, found = [], []
    for step in range(total):
        if step % 3200 == 0:
            cosine = (1 + math.cos(math.pi * step / total)) / 2
            linear = 1e-3 + (1 - 1e-3) * min(step / warm_up, 1)
            wanted.append(base * cosine * linear)
            found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert found == pytest.approx(wanted, rel=1e-3)
