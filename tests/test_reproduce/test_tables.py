"""The data file of the tables, and the small configs that stand for them."""

from __future__ import annotations

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config

from mmdysample.engine.errors import UsageError
from mmdysample.engine.launch import project_root
from mmdysample.reproduce.tables import find_tables, load_tables

pytestmark = pytest.mark.smoke
MEMBERS = ['dysample', 'dysample_s', 'dysample_plus', 'dysample_s_plus']
ROWS = [(scale, table, row) for scale in ('full', 'demo') for table in load_tables(scale).values()
        for row in table.runnable()]  # fmt: skip


@pytest.mark.parametrize(
    ('scale', 'table', 'row'), ROWS, ids=lambda value: getattr(value, 'name', value)
)
def test_every_row_has_a_config_of_its_upsampler(scale, table, row):
    path = project_root() / row.config
    assert path.is_file()
    kinds = [line for line in path.read_text().splitlines() if 'upsample' in line]
    name = row.name.removesuffix('_r101').removesuffix('_swin_b').removesuffix('_swin_l')
    assert name.replace('_', '-') in path.stem
    assert kinds or name in ('nearest', 'bilinear')  # which a small model's base brings along


def test_rows_without_an_implementation_are_shown_and_not_run():
    table = load_tables('full')['segformer']
    assert table.rows['freqfusion'].config is None
    assert table.rows['freqfusion'].published['miou'].value == '44.5'
    assert 'freqfusion' not in [row.name for row in table.runnable()]
    with pytest.raises(UsageError, match='has no row freqfusion to run; it has bilinear'):
        table.runnable(['freqfusion'])


def test_metrics_are_published_columns_and_the_first_row_is_the_baseline():
    for table in load_tables('full').values():
        assert set(table.metrics) <= set(table.columns)
        assert table.baseline.name.split('_')[0] in ('nearest', 'bilinear')
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


def test_the_demo_has_all_five_tasks_with_baseline_carafe_and_the_members():
    tables = load_tables('demo')
    tasks = {table.task for table in tables.values()}
    assert tasks == {'segmentation', 'detection', 'instance', 'panoptic', 'depth'}
    for table in tables.values():
        assert list(table.rows)[1:] == ['carafe', *MEMBERS]


def test_unknown_names_are_refused_with_those_that_exist():
    with pytest.raises(UsageError, match=r'no table yolo at scale demo; there are segformer, '):
        find_tables(['yolo'], 'demo')
    with pytest.raises(UsageError, match='no table upernet at scale demo'):
        find_tables(['upernet'], 'demo')
    with pytest.raises(ValueError, match=r"scale must be one of .*, got 'tiny'"):
        load_tables('tiny')


@pytest.mark.parametrize('table', load_tables('demo').values(), ids=lambda table: table.name)
def test_rows_of_a_demo_differ_in_the_upsampler_alone(table):
    part = 'neck' if table.task in ('detection', 'instance', 'panoptic') else 'decode_head'
    texts = []
    for row in table.runnable():
        cfg = Config.fromfile(project_root() / row.config)
        assert cfg.model[part].upsample_cfg == dict(type=row.name)
        del cfg.model[part].upsample_cfg
        cfg.pop('upsample_cfg', None)
        texts.append(cfg.pretty_text)
    assert len(set(texts)) == 1
