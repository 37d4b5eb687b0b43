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
from mmengine.registry import PARAM_SCHEDULERS
from segmentors import SIZE, batch, predict_step, train_step

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted((ROOT / 'depthformer').glob('*.py')) + sorted(
    path
    for pattern in ('demo/densedepth*.py', 'scenes/depthformer*.py')
    for path in ROOT.glob(pattern)
)
BASELINE = ROOT / 'depthformer' / 'depthformer_swin-t_bilinear_2xb8-38k_nyu-416x544.py'


pytestmark = pytest.mark.usefixtures('mmseg_scope')


def batch_of(max_depth):
    """With depth but for a strip without."""
    depth = torch.rand(2, 1, *SIZE) * max_depth
    depth[..., :8] = 0
    return batch('gt_depth_map', depth)


every_config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


@every_config
def test_file_name_says_upsampler_and_batch(path):
    config = Config.fromfile(path)
    assert config.model.decode_head.upsample_cfg.type == upsampler_in_name(path)
    gpus_and_batch = re.search(r'_(\d)xb(\d)-', path.stem)
    if gpus_and_batch:
        gpus, pictures = map(int, gpus_and_batch.groups())
        assert config.train_dataloader.batch_size == pictures
        assert config.auto_scale_lr.base_batch_size == gpus * pictures == 16


@every_config
def test_config_trains_and_tests(path):
    config = Config.fromfile(path)
    max_depth = config.model.decode_head.max_depth
    config.test_evaluator.pop('crop_type', None)  # made for the real size
    model, moved = train_step(config, batch_of(max_depth))
    assert moved and all(moved.values()), moved
    samples, results = predict_step(config, model, batch_of(max_depth))
    for sample in samples:
        depth = sample.pred_depth_map.data
        assert depth.shape == (1, *SIZE)
        assert depth.min() >= 1e-3 and depth.max() <= max_depth
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
