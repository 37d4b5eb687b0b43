"""The demo's bookkeeping and report; its trainings are the tools', which have their own tests."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmdet')

from mmengine.config import Config

from mmdysample.engine import demo
from mmdysample.engine.demo_report import COLUMNS, training_seconds, write_report
from mmdysample.engine.overlay import save_overlays


def test_configs_exist_and_differ_in_the_upsampler_alone():
    configs = [Config.fromfile(demo.project_root() / path) for path in demo.CONFIGS.values()]
    kinds = [config.model.neck.upsample_cfg.type for config in configs]
    assert kinds == list(demo.CONFIGS)
    for config in configs:
        del config.model.neck.upsample_cfg
        config.pop('upsample_cfg', None)
    assert configs[0].pretty_text == configs[1].pretty_text


@pytest.mark.parametrize(
    ('logged', 'seconds'),
    [
        ([(10, 2.0), (20, 1.0)], 30.0),
        # Stopped after step 20, resumed from a checkpoint at step 10.
        ([(10, 2.0), (20, 9.0), (20, 1.0), (30, 1.0)], 40.0),
        ([], 0.0),
    ],
)
def test_training_time_counts_every_step_once(logged, seconds):
    scalars = [dict(step=step, time=each, loss=1.0) for step, each in logged]
    scalars.insert(1, dict(step=1, time=99.0))  # a validation
    assert training_seconds(scalars) == seconds


def test_report_has_a_row_for_each_and_its_origin(tmp_path):
    metrics = dict.fromkeys(COLUMNS.values(), 0.5) | {COLUMNS['APl']: -1.0}
    trained = [dict(step=60, time=1.0, loss=1.0)]
    path = write_report(tmp_path, dict.fromkeys(demo.CONFIGS, (metrics, trained)), dict(seed=3))
    rows = path.read_text().splitlines()
    assert [row.split(' | ')[0].strip('| ') for row in rows[2:4]] == list(demo.CONFIGS)
    assert rows[2].endswith('| 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | – | 1.0 min |')
    record = json.loads((tmp_path / 'comparison.json').read_text())
    assert record['settings'] == {'seed': 3}
    assert {'command', 'device', 'versions', 'revision', 'results'} <= record.keys()


class Parts:
    """Counts what a part asks its tools to do."""

    def __init__(self, monkeypatch, work_dir) -> None:
        self.calls, self.work_dir = [], work_dir
        monkeypatch.setattr(demo.Part, '_call', self._call)

    def _call(self, tool, *arguments) -> None:
        self.calls.append(tool)
        train = self.work_dir / 'train'
        if tool == 'train.py':
            train.mkdir(exist_ok=True)
            (train / 'last_checkpoint').write_text('epoch_1.pth')

    def run(self, **settings) -> list[str]:
        self.calls.clear()
        defaults = dict(name='nearest', work_dir=self.work_dir, seed=0, overrides=(), threads=1)
        demo.Part(**defaults | settings).run()
        return list(self.calls)


def test_finished_parts_are_kept_until_the_settings_change(monkeypatch, tmp_path):
    parts = Parts(monkeypatch, tmp_path / 'nearest')
    assert parts.run() == ['train.py', 'test.py']
    assert parts.run() == []

    stale = tmp_path / 'nearest' / 'train' / 'epoch_1.pth'
    stale.touch()
    assert parts.run(seed=1) == ['train.py', 'test.py']
    assert not stale.exists()


def test_an_interrupted_part_keeps_its_checkpoints(monkeypatch, tmp_path):
    parts = Parts(monkeypatch, tmp_path / 'nearest')
    parts.run()
    (tmp_path / 'nearest/done.json').unlink()
    kept = tmp_path / 'nearest/train/epoch_1.pth'
    kept.touch()
    assert parts.run() == ['train.py', 'test.py']
    assert kept.exists()


def test_a_failing_tool_is_reported_with_the_end_of_its_log(monkeypatch, tmp_path):
    monkeypatch.setenv('PYTHONPATH', str(demo.project_root()))
    part = demo.Part('nearest', tmp_path, 0, (), 1)
    with pytest.raises(demo.UsageError, match=r'(?s)train\.py failed for nearest .*does not exist'):
        part._call('train.py', tmp_path / 'gone.py')


class Dataset:
    """Two black images; the truth of each is one box."""

    def __init__(self, folder) -> None:
        self.metainfo = dict(classes=('box',), palette=[(255, 0, 0)])
        self.paths = [folder / f'{index}.png' for index in range(2)]
        for path in self.paths:
            Image.new('RGB', (64, 48)).save(path)

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict:
        truth = [dict(bbox=[40, 20, 60, 40], bbox_label=0)]
        return dict(img_id=index, img_path=str(self.paths[index]), instances=truth)


def test_overlays_show_truth_and_confident_boxes_of_each(tmp_path):
    def predictions(name, score):
        boxes = dict(bboxes=torch.tensor([[40.0, 20.0, 60.0, 40.0]]), labels=torch.tensor([0]))
        boxes['scores'] = torch.tensor([score])
        path = tmp_path / f'{name}.pkl'
        path.write_bytes(pickle.dumps([dict(img_id=i, pred_instances=boxes) for i in range(2)]))
        return path

    found = dict(sure=predictions('sure', 0.9), unsure=predictions('unsure', 0.1))
    pictures = save_overlays(Dataset(tmp_path), found, tmp_path / 'overlays', 5)
    assert [path.name for path in pictures] == ['0.png', '1.png']
    pixels = np.asarray(Image.open(pictures[0]).convert('RGB')).astype(int)
    panels = np.split(pixels, 3, axis=1)
    red = [((panel[..., 0] > 150) & (panel[..., 1] < 90)).sum() for panel in panels]
    assert red[0] > 100 and red[1] > 100 and red[2] == 0
