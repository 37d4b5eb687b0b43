"""The published figures: what is kept, what is refused, what agrees."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmdysample.reproduce.compare import agrees
from mmdysample.reproduce.published import PUBLISHED, load_published

CONFIGS = Path(__file__).parents[2] / 'configs'


def test_printed_digits_are_kept() -> None:
    tables = load_published()
    row = tables['semantic_segmentation_segformer_b1_ade20k']['indexnet']
    assert row['params_m'].value == '12.60'
    assert row['params_m'].confirmed and row['params_m'].source == 'fade_readme'


def test_every_figure_has_a_listed_source() -> None:
    sources = yaml.safe_load(PUBLISHED.read_text(encoding='utf-8'))['sources']
    figures = [f for t in load_published().values() for r in t.values() for f in r.values()]
    assert len(figures) > 300
    assert {figure.source for figure in figures} <= set(sources)
    assert all(source['url'].startswith('https://') for source in sources.values())


def test_recalled_figures_stay_marked() -> None:
    tables = load_published()
    row = tables['semantic_segmentation_segformer_b1_ade20k']['dysample_s_plus']
    assert row['miou'].confirmed and not row['biou'].confirmed
    assert not tables['semantic_segmentation_maskformer_ade20k']['nearest_swin_b']['miou'].confirmed


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('{values: [1.0], status: guessed, source: s}', "confirmed or recalled, got 'guessed'"),
        ('{values: [1.0, 2.0], status: confirmed, source: s}', '2 values for columns'),
    ],
)
def test_malformed_rows_are_refused(tmp_path: Path, entry: str, message: str) -> None:
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
) -> None:
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
def test_metafiles_quote_the_published_figures(folder: str, table: str, metrics: dict) -> None:
    rows = load_published()[table]
    sources = yaml.safe_load(PUBLISHED.read_text(encoding='utf-8'))['sources']
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
