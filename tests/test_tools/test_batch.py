"""The images behind one update, kept on fewer GPUs than the published ones."""

from __future__ import annotations

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmengine.config import Config

from mmdysample.engine.batch import images_per_update, keep_batch
from mmdysample.engine.errors import UsageError
from mmdysample.reproduce.job import load_row_config
from mmdysample.reproduce.tables import load_tables

TABLES = load_tables('full')
COCO, EPOCHS = 117_266, 12  # pictures with boxes; 1x


def images_seen(cfg: Config, processes: int) -> int:
    if 'max_epochs' in cfg.train_cfg:
        return COCO * cfg.train_cfg.max_epochs
    return cfg.train_cfg.max_iters * cfg.train_dataloader.batch_size * processes


@pytest.mark.parametrize('table', TABLES.values(), ids=lambda table: table.name)
@pytest.mark.parametrize('processes', [1, 2])
def test_every_table_keeps_its_batch_and_its_images(table, processes):
    """The published batch and number of images, and warm-up and decay over the same images."""
    row = table.baseline
    plain = load_row_config(row)
    kept = load_row_config(row, keep_batch(plain, processes, table.batch))
    assert images_per_update(kept, processes) == table.batch
    assert images_seen(kept, processes) == table.train['images']
    steps = table.batch // (plain.train_dataloader.batch_size * processes)
    assert steps > 1 or processes == 2
    for before, after in zip(plain.param_scheduler, kept.param_scheduler, strict=True):
        factor = 1 if before.get('by_epoch', True) else steps
        for key in ('begin', 'end', 'T_max'):
            if before.get(key) is not None:
                assert after[key] == before[key] * factor, key
        milestones = before.get('milestones', [])
        assert after.get('milestones', []) == [m * factor for m in milestones]
    if 'max_iters' in plain.train_cfg:
        assert kept.train_cfg.val_interval == plain.train_cfg.val_interval * steps
        interval = plain.default_hooks.checkpoint.interval * steps
        assert kept.default_hooks.checkpoint.interval == interval


def test_the_published_number_of_gpus_needs_nothing():
    for name, processes in dict(faster_rcnn=8, segformer=8, upernet=4, depthformer=2).items():
        assert keep_batch(load_row_config(TABLES[name].baseline), processes, 16) == []


def test_accumulation_that_a_config_asks_for_counts():
    cfg = load_row_config(TABLES['faster_rcnn'].baseline, ['optim_wrapper.accumulative_counts=4'])
    assert images_per_update(cfg, 2) == 16
    assert 'optim_wrapper.accumulative_counts=8' in keep_batch(cfg, 1, 16)


def test_what_cannot_be_kept_is_refused():
    cfg = load_row_config(TABLES['faster_rcnn'].baseline)
    with pytest.raises(UsageError, match='updates of 16 images cannot be made of steps of 6'):
        keep_batch(cfg, 3, 16)
    cfg.param_scheduler[0] = dict(type='CyclicLR', by_epoch=False)
    with pytest.raises(UsageError, match='does not know what CyclicLR counts in steps'):
        keep_batch(cfg, 1, 16)
