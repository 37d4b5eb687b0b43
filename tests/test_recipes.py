"""The recipes of docs/recipes.md, run with the libraries that they are for."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mmdysample import DySample

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'recipes.md'
RECIPES = dict(
    re.findall(r'^<!-- recipe: (\w+) -->\n```python\n(.*?)^```$', PAGE.read_text(), re.M | re.S)
)
WHY = 'pip install "mmdysample[recipes]" mmengine'


def run_recipe(library: str, **names):
    """Run a block of the page as it stands; skip where its library cannot be imported."""
    pytest.importorskip(library, reason=f'{library} is not installed: {WHY}')
    pytest.importorskip('mmengine', reason=WHY)
    exec(compile(RECIPES[library], f'{PAGE} ({library})', 'exec'), names)
    return names


def samplers(model: torch.nn.Module) -> list[DySample]:
    return [module for module in model.modules() if isinstance(module, DySample)]


def stop_offsets(model: torch.nn.Module) -> None:
    for sampler in samplers(model):
        torch.nn.init.zeros_(sampler.offset.weight)


def assert_it_learns(model: torch.nn.Module, loss: torch.Tensor) -> None:
    loss.backward()
    assert all(sampler.offset.weight.grad.any() for sampler in samplers(model))


def test_a_recipe_for_each_library():
    assert set(RECIPES) == {'transformers', 'segmentation_models_pytorch', 'ultralytics'}


def test_segformer_of_transformers():
    found = run_recipe('transformers')
    model, config = found['model'].eval(), found['config']
    assert [up.scale_factor for up in samplers(model)] == [2, 4, 8]
    stock = found['SegformerForSemanticSegmentation'](config).eval()
    left = stock.load_state_dict(model.state_dict(), strict=False)
    assert not left.missing_keys
    assert all(key.startswith('decode_head.upsample_modules.') for key in left.unexpected_keys)
    image = torch.randn(1, 3, 64, 96)
    stop_offsets(model)
    with torch.no_grad():
        torch.testing.assert_close(
            model(pixel_values=image).logits, stock(pixel_values=image).logits, rtol=0, atol=1e-5
        )
    odd = model.train()(pixel_values=torch.randn(2, 3, 50, 70), labels=torch.ones(2, 50, 70).long())
    assert odd.logits.shape == (2, 19, 13, 18)
    assert_it_learns(model, odd.loss)


def test_unet_and_fpn_of_segmentation_models():
    # A torchvision that was built for another torch raises more than ImportError.
    reason = 'segmentation_models_pytorch needs a torchvision that fits this torch'
    pytest.importorskip('torchvision', reason=reason, exc_type=Exception)
    found = run_recipe('segmentation_models_pytorch')
    image = torch.randn(2, 3, 64, 96)
    for name, count in (('Unet', 5), ('FPN', 3)):
        model = found[name.lower()].eval()
        assert [up.scale_factor for up in samplers(model)] == [2] * count
        stock = getattr(found['smp'], name)('resnet18', encoder_weights=None, classes=5).eval()
        assert not stock.load_state_dict(model.state_dict(), strict=False).missing_keys
        stop_offsets(model)
        with torch.no_grad():
            torch.testing.assert_close(model(image), stock(image), rtol=0, atol=1e-4)
        assert_it_learns(model, model.train()(image).square().mean())


def test_yolo_of_ultralytics(tmp_path, monkeypatch):
    monkeypatch.setenv('YOLO_CONFIG_DIR', str(tmp_path))
    pytest.importorskip('ultralytics', reason=f'ultralytics is not installed: {WHY}')
    (tmp_path / 'yolo_rows.py').write_text(RECIPES['ultralytics'])
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module('yolo_rows')
    from ultralytics.cfg import get_cfg
    from ultralytics.nn import tasks

    stock = (
        Path(importlib.util.find_spec('ultralytics').origin).parent / 'cfg/models/v8/yolov8.yaml'
    )
    rows = yaml.safe_load(stock.read_text())
    (row,) = re.findall(r'^  - \[-1, 1, DySample.*$', PAGE.read_text(), re.M)
    for index, (_, _, module, _) in enumerate(rows['head']):
        if module == 'nn.Upsample':
            rows['head'][index] = yaml.safe_load(row)[0]
    try:
        model = tasks.DetectionModel(dict(rows, scale='n'), nc=2, verbose=False)
        assert [(up.in_channels, up.scale_factor) for up in samplers(model)] == [(256, 2), (128, 2)]
        model.args = get_cfg()
        boxes = dict(cls=torch.tensor([[1.0]]), bboxes=torch.tensor([[0.5, 0.5, 0.4, 0.3]]))
        batch = dict(img=torch.rand(1, 3, 64, 64), batch_idx=torch.zeros(1), **boxes)
        loss, _ = model.train()(batch)
        assert_it_learns(model, loss.sum())
        torch.save(model.eval(), tmp_path / 'model.pt')  # whole models, as Ultralytics keeps them
        twin = torch.load(tmp_path / 'model.pt', weights_only=False)
        image = torch.rand(1, 3, 64, 96)
        with torch.no_grad():
            assert torch.equal(twin(image)[0], model(image)[0])
    finally:
        del tasks.DySample
        sys.modules.pop('yolo_rows')
