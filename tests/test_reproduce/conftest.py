"""Stand-ins for the tools, so that the bookkeeping around them is tested in milliseconds."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('pandas')

from mmdysample.reproduce.job import Job
from mmdysample.reproduce.tables import load_tables

TRAIN = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
logs = folder / '20260101_000000' / 'vis_data'
logs.mkdir(parents=True, exist_ok=True)
(logs / 'scalars.json').write_text(json.dumps(dict(step=10, time=0.5, loss=1.0)) + '\\n')
(folder / Path(sys.argv[1]).name).write_text('')
(folder / 'provenance.json').write_text(json.dumps([dict(device='d', revision='r', versions={})]))
(folder / 'epoch_3.pth').write_text('weights')
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
"""
TEST = """
import json, sys
from pathlib import Path
assert Path(sys.argv[2]).name == 'epoch_3.pth'
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1]) / '20260101_000001'
folder.mkdir(parents=True)
(folder / 'result.json').write_text(json.dumps({'coco/bbox_mAP': 0.25}))
"""


@dataclass(frozen=True)
class StandIn(Job):
    """A job whose tools are the scripts in ``scripts``; ``calls`` says which were started."""

    scripts: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def _launch(self, tool, node):
        self.calls.append(tool)
        return [sys.executable, '-c', self.scripts[tool]]

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def make_job(tmp_path):
    """Make a stand-in for a job: ``make_job('dysample', train='print(1)')``."""
    table = load_tables('demo')['faster_rcnn']

    def make(row='nearest', seed=0, train=TRAIN, test=TEST, work_dir: Path = tmp_path, **options):
        scripts = {'train.py': train, 'test.py': test}
        return StandIn(table, table.rows[row], seed, work_dir, scripts=scripts, **options)

    return make
