"""Stand-ins for the tools, so that the bookkeeping around them is tested in milliseconds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmdysample.reproduce.job import Job, Settings
from mmdysample.reproduce.results import run_folder
from mmdysample.reproduce.tables import load_tables

TRAIN = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
logs = folder / '20260101_000000' / 'vis_data'
logs.mkdir(parents=True, exist_ok=True)
(logs / 'scalars.json').write_text(json.dumps(dict(step=10, time=0.5, loss=1.0)) + '\\n')
(folder / 'config.py').write_text('')
(folder / 'epoch_3.pth').write_text('weights')
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
"""
TEST = """
import json, sys
from pathlib import Path
assert Path(sys.argv[1]).name == 'epoch_3.pth'
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1]) / '20260101_000001'
folder.mkdir(parents=True)
(folder / 'result.json').write_text(json.dumps({'coco/bbox_mAP': 0.25}))
"""


class StandIn(Job):
    """A job whose tools are the scripts in ``scripts``; ``calls`` says which were started."""

    scripts: dict[str, str]
    calls: list[str]

    def _command(self, tool: str, *arguments: str) -> list[str]:
        self.calls.append(tool)
        return [sys.executable, '-c', self.scripts[tool], *arguments[1:]]


@pytest.fixture
def make_job(tmp_path):
    """Make a stand-in for a job: ``make_job('dysample', train='print(1)')``."""
    table = load_tables('demo')['faster_rcnn']

    def make(row='nearest', seed=0, train=TRAIN, test=TEST, work_dir: Path = tmp_path, **settings):
        job = StandIn(
            table=table,
            row=table.rows[row],
            seed=seed,
            folder=run_folder(work_dir, table, row, seed),
            settings=Settings(work_dir, **settings),
            say=lambda text: None,
        )
        job.scripts, job.calls = {'train.py': train, 'test.py': test}, []
        return job

    return make
