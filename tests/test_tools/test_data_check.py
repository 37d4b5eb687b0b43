"""Missing data is reported before anything is built, by path and by config key."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdysample.engine.data_check import check_data_paths
from mmdysample.engine.errors import MissingDataError

pytestmark = pytest.mark.smoke


def coco(root, **overrides) -> dict:
    return (
        dict(
            type='CocoDataset',
            data_root=str(root),
            ann_file='ann.json',
            data_prefix=dict(img='img/'),
        )
        | overrides
    )


def config(dataset, split: str = 'train', **evaluator) -> dict:
    return {
        f'{split}_dataloader': dict(dataset=dataset),
        f'{split}_evaluator': evaluator or None,
    }


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / 'img').mkdir()
    (tmp_path / 'ann.json').touch()
    return tmp_path


WRAPPERS = {
    'dataset': lambda inner: inner,
    'dataset.dataset': lambda inner: dict(type='RepeatDataset', times=2, dataset=inner),
    'dataset.dataset.dataset': lambda inner: dict(
        type='RepeatDataset', dataset=dict(type='ClassBalancedDataset', dataset=inner)
    ),
    'dataset.datasets[1]': lambda inner: dict(
        type='ConcatDataset', datasets=[dict(type='Rendered', scenes=dict(seed=0)), inner]
    ),
}


@pytest.mark.parametrize('key', WRAPPERS)
@pytest.mark.parametrize(
    ('name', 'value', 'path'),
    [
        ('ann_file', 'gone.json', 'gone.json'),
        ('data_prefix.img', dict(img='gone/'), 'gone/'),
        ('data_prefix.seg', dict(img='img/', seg='gone'), 'gone'),
        ('data_prefix', 'gone', 'gone'),
    ],
)
def test_names_path_and_key_through_wrappers(root, key, name, value, path):
    wrap = WRAPPERS[key]
    check_data_paths(config(wrap(coco(root))), ['train'])

    cfg = config(wrap(coco(root, **{name.split('.')[0]: value})))
    with pytest.raises(MissingDataError) as caught:
        check_data_paths(cfg, ['train'])
    lines = str(caught.value).splitlines()
    assert f'  train_dataloader.{key}.{name} = {root / path}'.rstrip('/') in [
        line.rstrip('/') for line in lines
    ]
    assert sum(' = ' in line for line in lines) == 1


def test_reports_all_missing_paths_at_once(tmp_path):
    cfg = config(coco(tmp_path)) | config(coco(tmp_path), 'val', ann_file=f'{tmp_path}/ann.json')
    with pytest.raises(MissingDataError) as caught:
        check_data_paths(cfg, ['train', 'val'])
    keys = [
        line.split(' = ')[0].strip() for line in str(caught.value).splitlines() if ' = ' in line
    ]
    assert keys == [
        'train_dataloader.dataset.ann_file',
        'train_dataloader.dataset.data_prefix.img',
        'val_dataloader.dataset.ann_file',
        'val_dataloader.dataset.data_prefix.img',
        'val_evaluator.ann_file',
    ]


def test_only_the_splits_of_the_command(tmp_path, root):
    cfg = config(coco(root)) | config(coco(tmp_path / 'gone'), 'test')
    check_data_paths(cfg, ['train', 'val'])
    with pytest.raises(MissingDataError, match='test_dataloader'):
        check_data_paths(cfg, ['test'])


def test_a_root_alone_is_checked(tmp_path):
    with pytest.raises(MissingDataError, match=r'train_dataloader\.dataset\.data_root = .*gone'):
        check_data_paths(config(dict(type='Folder', data_root=str(tmp_path / 'gone'))), ['train'])


def test_each_evaluator_of_a_list_is_checked(root):
    cfg = config(coco(root), 'val')
    cfg['val_evaluator'] = [
        dict(type='CocoMetric', ann_file=str(root / 'ann.json'), outfile_prefix='results/gone'),
        dict(type='CocoPanopticMetric', seg_prefix=str(root / 'gone')),
    ]
    with pytest.raises(MissingDataError, match=r'val_evaluator\[1\]\.seg_prefix'):
        check_data_paths(cfg, ['val'])
    cfg['val_evaluator'].pop()
    check_data_paths(cfg, ['val'])


@pytest.mark.parametrize(
    'overrides',
    [
        dict(scenes=dict(count=8, seed=0)),
        dict(backend_args=dict(backend='petrel')),
        dict(data_root='s3://bucket/coco/'),
    ],
    ids=['rendered on demand', 'other backend', 'remote'],
)
def test_data_that_need_not_be_here_is_not_asked_for(tmp_path, overrides):
    missing = coco(tmp_path / 'gone')
    with pytest.raises(MissingDataError):
        check_data_paths(config(missing), ['train'])
    check_data_paths(config(missing | overrides), ['train'])


def test_a_rendered_dataset_excuses_its_evaluator(tmp_path):
    dataset = coco(tmp_path / 'gone', scenes=dict(count=8))
    check_data_paths(config(dataset, 'val', ann_file=str(tmp_path / 'gone/ann.json')), ['val'])
