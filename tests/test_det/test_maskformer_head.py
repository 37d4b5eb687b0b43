"""mmdet's MaskFormer head with a chosen upsampler in its pixel decoder."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip('mmdet')
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

import mmdysample  # noqa: F401  registers the head

CONFIG = 'mmdet::maskformer/maskformer_swin-l-p4-w12_64xb1-ms-300e_coco.py'
CHANNELS = [8, 16, 24, 32]


def head(**options):
    """The head of mmdet's own config for narrow features, shallow."""
    config = get_config(CONFIG).model.panoptic_head
    config.update(in_channels=CHANNELS, **options)
    config.transformer_decoder.num_layers = 1
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(config)
    built.init_weights()
    return built.eval()


def test_nearest_equals_the_stock_head():
    stock = head()
    ours = head(type='UpsampleMaskFormerHead', upsample_cfg='nearest')
    assert type(ours) is not type(stock)
    ours.load_state_dict(stock.state_dict())
    sizes = [(33, 47), (17, 24), (9, 12), (5, 6)]
    inputs = [torch.randn(1, c, *s) for c, s in zip(CHANNELS, sizes, strict=True)]
    sample = DetDataSample(metainfo=dict(batch_input_shape=(132, 188), img_shape=(132, 188)))
    for actual, expected in zip(ours(inputs, [sample]), stock(inputs, [sample]), strict=True):
        assert torch.equal(actual, expected)


def test_published_names_load():
    missing, unexpected = head(type='UpsampleMaskFormerHead').load_state_dict(
        head().state_dict(), strict=False
    )
    assert not unexpected
    assert len(missing) == 3 * 3
    assert all(key.startswith('pixel_decoder.upsample_modules.') for key in missing)
