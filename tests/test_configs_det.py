"""Every detection config: it builds what its name says, trains a step and tests a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('mmdet')

from detectors import batch, build, read, train_step
from file_names import OWN_START, upsampler_in_name
from mmengine.config import Config
from torch import nn

from mmdysample import Upsampler, build_upsampler
from mmdysample.reproduce.tables import load_published

CONFIGS = Path(__file__).parents[1] / 'configs'
TABLES = {
    'faster_rcnn': 'object_detection_faster_rcnn_coco',
    'mask_rcnn': 'instance_segmentation_mask_rcnn_coco',
    'panoptic_fpn': 'panoptic_segmentation_panoptic_fpn_coco',
}
FOLDERS = (*TABLES, 'published', 'retinanet')
FILES = [path for folder in FOLDERS for path in sorted((CONFIGS / folder).glob('*.py'))]
FILES += sorted((CONFIGS / 'demo').glob('*_fpn-*.py'))
# Of the published ones a model's worth is run; a test compares all with the plain ones, which are.
RUN = [path for path in FILES if path.parent.name != 'published' or 'faster' in path.stem]
ONE_PER_FOLDER = [
    next((CONFIGS / name).glob('*r50_fpn-dysample_1x*.py')) for name in (*TABLES, 'retinanet')
]

each_file = pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
each_folder = pytest.mark.parametrize('path', ONE_PER_FOLDER, ids=lambda path: path.parent.name)


def upsample_cfg_of(path: Path) -> dict[str, Any]:
    """Options as in the authors' code: no gate in FADE, and a bias in published scopes."""
    name = upsampler_in_name(path)
    if name in ('fade', 'fade_lite'):
        return dict(type=name, gating=False)
    if name == 'freqfusion':
        panoptic = dict(feature_resample_norm=False) if 'panoptic' in path.stem else {}
        return dict(type=name, details=True, **panoptic)
    if path.parent.name == 'published' and name.endswith('_plus'):
        return dict(type=name, scope_bias=True)
    return dict(type=name)


def upsamplers_in(model: nn.Module) -> list[Upsampler]:
    return [module for module in model.modules() if isinstance(module, Upsampler)]


@torch.no_grad()
def count_detections(path: Path, model: nn.Module, score_thr: float) -> list[int]:
    """Detections above a score in each of two images."""
    model.eval()
    head = model.roi_head if hasattr(model, 'roi_head') else model.bbox_head
    head.test_cfg.score_thr = score_thr
    samples = model.test_step(batch(path, [0, 1]))
    if hasattr(model, 'semantic_head'):
        assert all(sample.pred_panoptic_seg.sem_seg.shape[-2:] == (64, 96) for sample in samples)
        return [count_things(sample.pred_panoptic_seg.sem_seg) for sample in samples]
    return [len(sample.pred_instances) for sample in samples]


def count_things(segments: torch.Tensor) -> int:
    """Instances in a panoptic map, whose ids are ``class + 1000 * instance``."""
    return sum(int(segment) >= 1000 for segment in segments.unique())


def test_every_published_row_has_a_config_and_one_as_it_was_trained() -> None:
    names = {path.stem for path in FILES}
    rows = [(folder, row) for folder, table in TABLES.items() for row in load_published()[table]]
    assert len(rows) > 30
    for folder, row in rows:
        depth = 101 if row.endswith('_r101') else 50
        upsampler = row.removesuffix('_r101').replace('_', '-')
        model = folder.replace('_', '-')
        assert {
            f'{model}_r{depth}_fpn-{upsampler}_1x_coco{suffix}' for suffix in ('', '_published')
        } <= names


@pytest.mark.parametrize(
    'path', [path for path in FILES if path.parent.name == 'published'], ids=lambda path: path.stem
)
def test_published_config_adds_what_the_authors_code_does(path: Path) -> None:
    """Padding, and Xavier's start of the upsamplers; all else is the plain config's."""
    folder = path.stem.split('_r')[0].replace('-', '_')
    plain = Config.fromfile(CONFIGS / folder / f'{path.stem.removesuffix("_published")}.py')
    published = Config.fromfile(path)
    assert published.model.data_preprocessor.pad_size_divisor == 64
    own_start = upsampler_in_name(path) in OWN_START
    assert published.model.neck.init_upsamplers is not own_start
    plain.model.data_preprocessor.pad_size_divisor = 64
    plain.model.neck.init_upsamplers = not own_start
    if path.stem.split('_1x')[0].endswith('plus'):
        plain.model.neck.upsample_cfg.scope_bias = True
    assert published.to_dict() == plain.to_dict()


@each_file
def test_config_is_what_its_name_says(path: Path) -> None:
    cfg = read(path)
    assert cfg.model.backbone.depth == int(path.stem.split('_r')[1].split('_')[0])
    assert cfg.model.neck.type == 'UpsampleFPN'
    assert cfg.model.neck.upsample_cfg == upsample_cfg_of(path)
    assert cfg.custom_imports.imports == ['mmdysample']
    assert cfg.default_scope == 'mmdet'


@pytest.mark.parametrize('path', RUN, ids=lambda path: path.stem)
def test_train_and_test_step(path: Path) -> None:
    """With an image without objects in the batch."""
    model = build(path)
    expected = build_upsampler(upsample_cfg_of(path), 256)
    upsamplers = upsamplers_in(model)
    assert len(upsamplers) == (2 if path.parent.name == 'retinanet' else 3)
    assert all(type(upsampler) is type(expected) for upsampler in upsamplers)

    train_step(path, model, objects=[2, 0])
    for upsampler in upsamplers:
        learned = [p for p in upsampler.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)
        assert not learned or any(p.grad.any() for p in learned)
    assert count_detections(path, model, score_thr=1.0) == [0, 0]


@each_folder
def test_train_step_without_any_object(path: Path) -> None:
    train_step(path, build(path), objects=[0, 0])


@each_folder
def test_detections_where_the_threshold_lets_them_pass(path: Path) -> None:
    """So that the empty results above are the threshold's doing."""
    assert min(count_detections(path, build(path), score_thr=0.0)) > 0
