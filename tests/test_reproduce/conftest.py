"""Stand-ins for the tools, so that the bookkeeping around them is tested in milliseconds."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
from stand_in_tools import TEST, TRAIN

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('pandas')

from mmdysample.reproduce.job import Job
from mmdysample.reproduce.tables import load_tables


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

    def plain(self, **changes) -> Job:
        """The job whose stand-in this is."""
        names = [field.name for field in fields(Job)]
        return Job(**{name: getattr(self, name) for name in names} | changes)


@pytest.fixture
def make_job(tmp_path):
    """Make a stand-in for a job: ``make_job('dysample', train='print(1)')``."""
    table = load_tables('demo')['faster_rcnn']

    def make(row='nearest', seed=0, train=TRAIN, test=TEST, work_dir: Path = tmp_path, **options):
        scripts = {'train.py': train, 'test.py': test}
        return StandIn(table, table.rows[row], seed, work_dir, scripts=scripts, **options)

    return make
