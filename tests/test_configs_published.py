"""The tables' configs against what docs/fidelity.yaml says of them, and against their baselines."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
from file_names import OWN_START
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmdysample.reproduce.tables import PUBLISHED, Row, Table, load_published, load_tables

ROOT = Path(__file__).parents[1]
TABLES = load_tables('full')
FIDELITY = yaml.safe_load((ROOT / 'docs' / 'fidelity.yaml').read_text(encoding='utf-8'))
SOURCES = FIDELITY.pop('sources')
ASPECTS = [
    pytest.param(table, item, id=f'{table}-{item["aspect"]}')
    for entry in FIDELITY.values()
    for table in entry['tables']
    for item in entry['aspects']
    if 'key' in item
]
COMPARED = [
    pytest.param(table, row, id=f'{table.name}-{row.name}')
    for table in TABLES.values()
    for row in table.runnable()
    if table.compared_with(row)
]

OWN_ORDER = {'segformer': ['freqfusion']}  # its authors join the levels in another order


@cache
def config_of(path: str) -> Config:
    return Config.fromfile(ROOT / path)


def upsampler_of(row: Row) -> str:
    name = row.name
    for suffix in ('_r101', '_swin_b', '_swin_l'):
        name = name.removesuffix(suffix)
    return name


def value_at(cfg: Any, key: str) -> Any:
    """The value at a dotted key; in a list, a step's name is its type. None where there is none."""
    for part in key.split('.'):
        if isinstance(cfg, list | tuple):
            cfg = next((item for item in cfg if item.get('type') == part), None)
        else:
            cfg = cfg.get(part)
        if cfg is None:
            return None
    return list(cfg) if isinstance(cfg, tuple) else cfg


def without_upsampler(cfg: Config) -> dict[str, Any]:
    """A config as plain values, its ``upsample_cfg`` taken out."""
    plain = cfg.to_dict()
    hosts = [plain['model'].get(name, {}) for name in ('neck', 'decode_head')]
    (host,) = [host for host in hosts if host and 'upsample_cfg' in host]
    del host['upsample_cfg']
    return plain


@pytest.mark.parametrize(('table', 'item'), ASPECTS)
def test_every_row_has_what_the_page_claims(table: str, item: dict[str, Any]) -> None:
    rows = [
        row
        for row in TABLES[table].runnable()
        if upsampler_of(row) in item.get('only', [upsampler_of(row)])
        and upsampler_of(row) not in item.get('not', [])
    ]
    assert rows
    for row in rows:
        assert value_at(config_of(row.config), item['key']) == item['ours'], row.name


def test_every_table_has_a_page_and_every_statement_its_source() -> None:
    assert {table for entry in FIDELITY.values() for table in entry['tables']} == set(TABLES)
    used = set()
    for entry in FIDELITY.values():
        for item in entry['aspects']:
            assert item['is'] in ('same', 'option', 'unknown')
            assert ('switch' in item) == (item['is'] == 'option')
            assert ('ours' in item) == ('key' in item)
            assert item.get('theirs') or item.get('ours') is not None
            keys = item.get('source', [])
            used |= {keys} if isinstance(keys, str) else set(keys)
            assert keys or item['is'] == 'unknown'
    assert used == set(SOURCES)


def test_pages_hold_what_the_data_file_says() -> None:
    """After a change of the file: ``python docs/benchmarks/fidelity.py``."""
    pages = runpy.run_path(str(ROOT / 'docs' / 'benchmarks' / 'fidelity.py'))['pages']()
    assert {path.name for path in pages} == {entry['page'] for entry in FIDELITY.values()}
    for path, text in pages.items():
        assert path.read_text(encoding='utf-8') == text


@pytest.mark.parametrize(('table', 'row'), COMPARED)
def test_rows_differ_from_their_baseline_in_the_upsampler_alone(table: Table, row: Row) -> None:
    """And in its start, where its authors' code and not their neck draws its weights.

    One row has an order of fusion of its own.
    """
    baseline = table.compared_with(row)
    expected = without_upsampler(config_of(baseline.config))
    if upsampler_of(row) in OWN_START and 'init_upsamplers' in expected['model'].get('neck', {}):
        expected['model']['neck']['init_upsamplers'] = False
    if row.name in OWN_ORDER.get(table.name, []):
        expected['model']['decode_head']['stepwise'] = True
    assert without_upsampler(config_of(row.config)) == expected
    part = 'neck' if 'neck' in row.config or 'fpn' in row.config else 'decode_head'
    assert config_of(row.config).model[part].upsample_cfg.type == upsampler_of(row)


def test_derived_figures_are_marked_and_compared_with_nothing() -> None:
    """A figure that nobody printed is computed from the module, so it would agree with itself."""
    document = yaml.safe_load(PUBLISHED.read_text(encoding='utf-8'))
    derived = [
        (name, row, column)
        for name, table in document.items()
        for row, entry in table.get('rows', {}).items()
        if isinstance(entry, dict)
        for column in entry.get('derived', [])
    ]
    assert len(derived) == 4
    for name, row, column in derived:
        figure = load_published()[name][row][column]
        assert not figure.confirmed and 'derived' in figure.note


def test_the_first_row_of_each_backbone_is_an_interpolation() -> None:
    for table in TABLES.values():
        for row in table.runnable():
            if table.compared_with(row) is None:
                assert upsampler_of(row) in ('nearest', 'bilinear')


@pytest.mark.parametrize('path', sorted((ROOT / 'configs' / 'maskformer').glob('*nearest*.py')))
def test_no_norm_of_maskformer_decays(path: Path) -> None:
    """In the backbone, the pixel decoder and the transformer; other weights decay."""
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    cfg = Config.fromfile(path)
    cfg.model.backbone.update(
        init_cfg=None, depths=[1, 1, 1, 1], embed_dims=24, num_heads=[1, 1, 2, 2]
    )
    cfg.model.decode_head.in_channels = [24, 48, 96, 192]
    cfg.model.decode_head.transformer_decoder.num_layers = 1
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    decays = {
        id(parameter): group['weight_decay']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    norms = [
        parameter
        for module in model.modules()
        if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm)
        for parameter in module.parameters()
    ]
    assert len(norms) > 30 and all(decays[id(parameter)] == 0 for parameter in norms)
    mask_feature = model.decode_head.pixel_decoder.mask_feature.weight
    assert decays[id(mask_feature)] == cfg.optim_wrapper.optimizer.weight_decay > 0
