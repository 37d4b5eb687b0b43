"""The segmentation and depth models of configs made cheap, and a step of training and testing."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

SIZE = (64, 96)


def shrink(model: ConfigDict) -> None:
    """Make a model quick to build and run: shallow, with thin heads and small pictures."""
    model.data_preprocessor.size = SIZE
    model.pretrained = None
    backbone = model.backbone
    backbone.init_cfg = None
    if backbone.type == 'MixVisionTransformer':
        backbone.num_layers = [1, 1, 1, 1]
    elif 'Swin' in backbone.type:
        backbone.depths = [1, 1, 1, 1]
    if backbone.type == 'DepthFormerSwin':
        model.neck.embedding_dim = 64
        if backbone.embed_dims > 96:
            backbone.update(embed_dims=96, num_heads=[3, 6, 12, 24])
            model.neck.in_channels = [64, 96, 192, 384, 768]
            model.decode_head.in_channels = model.neck.in_channels
    if model.decode_head.type == 'UpsampleUPerHead':
        model.decode_head.channels = 64
    if model.get('test_cfg', {}).get('mode') == 'slide':
        model.test_cfg.update(crop_size=SIZE, stride=SIZE)
    if 'transformer_decoder' in model.decode_head:
        model.decode_head.transformer_decoder.num_layers = 1


def batch(name: str, truth: Tensor) -> dict[str, Any]:
    """Two images of random pixels, and their truth ``(2, 1, H, W)`` under a name."""
    shape = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE)
    samples = [SegDataSample(metainfo=shape, **{name: PixelData(data=x)}) for x in truth]
    return dict(inputs=[*torch.randint(0, 256, (2, 3, *SIZE)).byte()], data_samples=samples)


def train_step(config: Config, data: dict[str, Any]) -> tuple[nn.Module, dict[str, bool]]:
    """Build the model of a config, made cheap, train a step, and tell what moved in its head."""
    assert config.default_scope == 'mmseg'
    assert 'mmdysample' in config.custom_imports.imports
    shrink(config.model)
    model = revert_sync_batchnorm(MODELS.build(config.model))
    model.init_weights()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    for group in optimizer.param_groups:
        group['weight_decay'] = 0  # what moves then has a gradient
    head = {name: p for name, p in model.decode_head.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in head.items()}
    log = model.train().train_step(data, optimizer)
    assert torch.isfinite(log['loss'])
    return model, {name: not torch.equal(p, before[name]) for name, p in head.items()}


def predict_step(
    config: Config, model: nn.Module, data: dict[str, Any], classes: int = 0
) -> tuple[list[SegDataSample], dict[str, float]]:
    """Predict a batch and evaluate it: samples and metrics."""
    with torch.no_grad():
        samples = model.eval().test_step(data)
    evaluator = Evaluator(config.test_evaluator)
    evaluator.dataset_meta = dict(classes=[str(i) for i in range(classes)])
    evaluator.process(samples)
    return samples, evaluator.evaluate(len(samples))
