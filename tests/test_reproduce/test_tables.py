"""The data file of the tables, and the small configs that stand for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmdysample.costs.compare import agrees
from mmdysample.engine.errors import UsageError
from mmdysample.engine.launch import project_root
from mmdysample.reproduce.tables import (
    SCALES,
    column_label,
    find_tables,
    load_published,
    load_sources,
    load_tables,
)

pytestmark = pytest.mark.smoke
CONFIGS = project_root() / 'configs'
ROWS = [(scale, table, row) for scale in SCALES for table in load_tables(scale).values()
        for row in table.runnable()]  # fmt: skip


def varied(table) -> str:
    """The option in which the rows of a table differ."""
    return 'downsample_cfg' if table.name == 'pafpn' else 'upsample_cfg'


def types_of(part, option: str) -> set[str]:
    """All types that a part of a config names as an option."""
    if isinstance(part, dict):
        own = part.get(option)
        found = {own['type']} if isinstance(own, dict) and 'type' in own else set()
        parts = [value for key, value in part.items() if key != 'mask_head']  # its own, not ours
        return found.union(*(types_of(inner, option) for inner in parts))
    if isinstance(part, list | tuple):
        return set().union(*(types_of(inner, option) for inner in part))
    return set()


@pytest.mark.parametrize(
    ('scale', 'table', 'row'), ROWS, ids=lambda value: getattr(value, 'name', value)
)
def test_every_row_has_a_config_of_its_name_and_backbone(scale, table, row):
    model = Config.fromfile(project_root() / row.config).model
    name, *backbone = re.split('_(?=r101$|swin_b$|swin_l$)', row.name)
    assert types_of(model, varied(table)) == {name}
    if backbone:
        marks = dict(r101=('depth', 101), swin_b=('embed_dims', 128), swin_l=('embed_dims', 192))
        key, value = marks[backbone[0]]
        assert model.backbone[key] == value


def test_a_row_that_is_not_there():
    with pytest.raises(UsageError, match='has no row espcn to run; it has bilinear'):
        load_tables('full')['segformer'].runnable(['espcn'])


def test_metrics_are_published_columns_and_the_first_row_is_the_baseline():
    for table in load_tables('full').values():
        assert set(table.metrics) <= set(table.columns)
        assert table.baseline.name.split('_')[0] in ('nearest', 'bilinear')
        assert table.batch == 16 and column_label(table.leading)[0] != table.leading
        assert table.train['images'] > 0 and table.train['gmacs'] > 0


def test_rows_are_compared_on_their_own_backbone():
    tables = load_tables('full')
    pairs = dict(
        dysample=('faster_rcnn', 'nearest'),
        dysample_plus_r101=('faster_rcnn', 'nearest_r101'),
        dysample_plus_swin_l=('maskformer', 'nearest_swin_l'),
        carafe_swin_b=('maskformer', 'nearest_swin_b'),
        sapa_i=('segformer', 'bilinear'),
    )
    for row, (name, baseline) in pairs.items():
        assert tables[name].compared_with(tables[name].rows[row]).name == baseline
    for name in ('nearest', 'nearest_r101'):
        assert tables['faster_rcnn'].compared_with(tables['faster_rcnn'].rows[name]) is None


def test_recalled_figures_keep_their_mark():
    figures = load_tables('full')['segformer'].rows['dysample'].published
    assert figures['miou'].confirmed and not figures['biou'].confirmed


def test_the_demo_has_all_five_tasks_with_baseline_carafe_and_two_members():
    tables = load_tables('demo')
    tasks = {table.task for table in tables.values()}
    assert tasks == {'segmentation', 'detection', 'instance', 'panoptic', 'depth'}
    for table in tables.values():
        assert list(table.rows)[1:] == ['carafe', 'dysample', 'dysample_s_plus']


def test_a_scale_may_name_metrics_of_its_own_data_set():
    small, full = (load_tables(scale)['mask_rcnn'].metrics for scale in ('small', 'full'))
    assert small['mask_ap'].key == 'segm/nucleus_precision'
    assert full['mask_ap'].key == 'coco/segm_mAP'


def test_unknown_names_are_refused_with_those_that_exist():
    with pytest.raises(UsageError, match=r'no table yolo at scale demo; there are segformer, '):
        find_tables(['yolo'], 'demo')
    with pytest.raises(UsageError, match='no table upernet at scale demo'):
        find_tables(['upernet'], 'demo')
    with pytest.raises(ValueError, match=r"scale must be one of .*, got 'tiny'"):
        load_tables('tiny')


@pytest.mark.parametrize(
    'table',
    [*load_tables('demo').values(), *load_tables('small').values()],
    ids=lambda table: f'{table.scale}-{table.name}',
)
def test_rows_of_a_smaller_table_differ_in_one_option_alone(table):
    in_neck = table.task in ('detection', 'instance', 'panoptic') or table.name == 'pafpn'
    part = 'neck' if in_neck else 'decode_head'
    texts = []
    for row in table.runnable():
        cfg = Config.fromfile(project_root() / row.config)
        node = cfg.model if table.task == 'superres' else cfg.model[part]
        init = node[varied(table)].pop('init', None)  # a trained network goes on where it sampled
        assert init in ((None, 'nearest') if table.start else (None,))
        assert node[varied(table)] == dict(type=row.name)
        del node[varied(table)]
        cfg.pop('upsample_cfg', None)
        texts.append(cfg.pretty_text)
    assert len(set(texts)) == 1


@pytest.mark.parametrize(
    'name', [name for name in load_tables('small') if name.startswith('adopt_')]
)
def test_adoption_begins_at_the_outputs_of_the_trained_network(name: str):
    """Of the part that upsamples, its random offsets set aside."""
    table = load_tables('small')[name]
    init_default_scope('mmseg' if table.task == 'segmentation' else 'mmdet')
    part = 'decode_head' if table.task == 'segmentation' else 'neck'
    levels = [torch.randn(1, c, 64 >> i, 96 >> i) for i, c in enumerate((24, 32, 96, 320))]
    outputs, state = [], {}
    for row in table.runnable():
        module = MODELS.build(Config.fromfile(project_root() / row.config).model[part]).eval()
        missing, unexpected = module.load_state_dict(state or module.state_dict(), strict=False)
        state = state or module.state_dict()
        assert not unexpected
        for key, weight in module.state_dict().items():
            if key in missing:
                assert 'upsample' in key
                weight.zero_()
        with torch.no_grad():
            outputs.append(module(levels))
    for adopted in outputs[1:]:
        torch.testing.assert_close(adopted, outputs[0], atol=1e-5, rtol=1e-5)


# Published numbers --------------------------------------------------------------------------------


def test_printed_digits_are_kept():
    tables = load_published()
    row = tables['semantic_segmentation_segformer_b1_ade20k']['indexnet']
    assert row['params_m'].value == '12.60'
    assert row['params_m'].confirmed and row['params_m'].source == 'fade_readme'


def test_every_figure_has_a_listed_source():
    sources = load_sources()
    figures = [f for t in load_published().values() for r in t.values() for f in r.values()]
    assert len(figures) > 300
    assert {figure.source for figure in figures} <= set(sources)
    assert all(source['url'].startswith('https://') for source in sources.values())


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('{values: [1.0], status: guessed, source: s}', "confirmed or recalled, got 'guessed'"),
        ('{values: [1.0, 2.0], status: confirmed, source: s}', '2 values for columns'),
    ],
)
def test_malformed_rows_are_refused(tmp_path: Path, entry: str, message: str):
    path = tmp_path / 'tables.yaml'
    path.write_text(f'table:\n  columns: [miou]\n  rows:\n    a: {entry}\n')
    with pytest.raises(ValueError, match=message):
        load_published(path)


@pytest.mark.parametrize(
    ('column', 'computed', 'printed', 'expected'),
    [
        ('params_m', 0.0491, '0.0492', True),  # one unit of the last digit
        ('params_m', 0.0490, '0.0492', False),
        ('params_m', 12.62, '12.60', False),  # 12.6 would allow it, the printed zero does not
        ('params_m', 12.62, '12.6', True),
        ('flops_g', 0.747, '0.8', True),
        ('flops_g', 30.0, '30.65', True),  # 2.1 %
        ('flops_g', 29.6, '30.65', False),  # 3.4 %
        ('flops_g', 8.607, '34.4', False),
    ],
)
def test_agreement_goes_by_the_printed_digits(
    column: str, computed: float, printed: str, expected: bool
):
    assert agrees(column, computed, printed) is expected


@pytest.mark.parametrize(
    ('folder', 'table', 'metrics'),
    [
        ('faster_rcnn', 'object_detection_faster_rcnn_coco', {'ap': 'box AP'}),
        (
            'mask_rcnn',
            'instance_segmentation_mask_rcnn_coco',
            {'box_ap': 'box AP', 'mask_ap': 'mask AP'},
        ),
        ('panoptic_fpn', 'panoptic_segmentation_panoptic_fpn_coco', {'pq': 'PQ'}),
    ],
)
def test_metafiles_quote_the_published_figures(folder: str, table: str, metrics: dict):
    rows = load_published()[table]
    sources = load_sources()
    metafile = yaml.safe_load((CONFIGS / folder / 'metafile.yml').read_text(encoding='utf-8'))
    models = {model['Name']: model for model in metafile['Models']}
    files = {path.stem: path for path in (CONFIGS / folder).glob('*_1x_coco.py')}
    assert models.keys() == files.keys()
    quoted = 0
    for name, model in models.items():
        assert model['Config'] == f'configs/{folder}/{name}.py'
        upsampler = name.split('_fpn-')[1].split('_')[0].replace('-', '_')
        row = rows.get(upsampler + ('_r101' if '_r101_' in name else ''))
        if row is None:
            assert 'Results' not in model
            continue
        quoted += 1
        published = {metrics[column]: float(row[column].value) for column in metrics}
        values = {}
        for result in model['Results']:
            values.update(result['Metrics'])
            assert result['Source'] == sources[row[next(iter(metrics))].source]['url']
        assert values == published
        assert all(row[column].confirmed for column in metrics)
    assert quoted >= 11
