"""Tiny models to export; the tests of this folder need the extra ``export``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [f'class {index}' for index in range(80)]


def tiny_config(name: str, upsampler: str, folder: Path) -> Path:
    """Write the config of a tiny model: ``name`` of ``configs/_base_/models``."""
    scope, part = ('mmseg', 'decode_head') if 'rcnn' not in name else ('mmdet', 'neck')
    pack = 'PackSegInputs' if scope == 'mmseg' else 'PackDetInputs'
    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64)), dict(type=pack)]
    classes = ', num_classes=3' if scope == 'mmseg' else ''
    path = folder / f'{name}.py'
    path.write_text(
        f'_base_ = {str(ROOT / "configs/_base_/models" / name) + ".py"!r}\n'
        f'default_scope = {scope!r}\n'
        f'upsample_cfg = dict(_delete_=True, type={upsampler!r})\n'
        f'model = dict({part}=dict(upsample_cfg=upsample_cfg{classes}))\n'
        f'test_dataloader = dict(dataset=dict(pipeline={steps!r}))\n'
    )
    return path


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights by which every layer matters: a fresh head's small ones would hide a wrong graph."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if 'upsample_modules' in name:
            torch.nn.init.normal_(parameter, std=0.01)
        elif '_reg.' in name or '.fc_cls.' in name:  # a box is an exponential of what they return
            torch.nn.init.normal_(parameter, std=0.003)
        elif parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return model.eval()


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """``tiny('faster-rcnn_r18_fpn_tiny', 'dysample')``: a config and a checkpoint that fits it."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    def make(name: str, upsampler: str = 'dysample') -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp('tiny')
        config = tiny_config(name, upsampler, folder)
        cfg = Config.fromfile(config)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = lively(MODELS.build(cfg.model))
        meta = dict(dataset_meta=dict(classes=CLASSES))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'tiny.pth')
        return config, folder / 'tiny.pth'

    return make
