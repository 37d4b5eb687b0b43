"""Gather IoU and boundary IoU of each class of CamVid, and fill the table of docs/real_data.md.

From the repository root, after `python tools/reproduce.py run segformer --scale small`:

    python docs/benchmarks/camvid_classes.py work_dirs/reproduce

Tests print these numbers and report their means alone, so they are read from the logs. Without a
folder, the table is made again from camvid_classes.json.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from statistics import mean

from detection import fill, table

from mmdysample.reproduce.results import find_runs
from mmdysample.reproduce.tables import load_tables

RAW = Path(__file__).with_suffix('.json')
PAGE = Path(__file__).parents[1] / 'real_data.md'
RARE = ('Pole', 'Pedestrian', 'Bicyclist')


def classes_of(log: str) -> dict[str, list[float]]:
    """IoU and boundary IoU in percent by class, from the log of a test."""
    iou = dict(re.findall(r'\| +(\w+) +\| +([\d.]+) +\| +[\d.]+ +\|', log))
    boundary = dict(re.findall(r'\| +(\w+) +\| +([\d.]+) +\|$', log, flags=re.M))
    return {name: [float(iou[name]), float(boundary[name])] for name in iou}


def collect(work_dir: Path) -> None:
    """Write the JSON."""
    entry = load_tables('small')['segformer']
    results = [
        dict(
            row=run.row,
            seed=run.seed,
            revision=run.record['revision'],
            classes=classes_of((run.folder / 'test.log').read_text()),
        )
        for run in find_runs(work_dir, entry)
        if run.record
    ]
    RAW.write_text(json.dumps(results, indent=1) + '\n')


def made() -> str:
    """IoU / boundary IoU of each class, means over seeds, and over all classes but the rare."""
    results = json.loads(RAW.read_text())
    rows = list(dict.fromkeys(result['row'] for result in results))

    def cell(row: str, names: list[str]) -> str:
        pairs = [r['classes'][name] for r in results if r['row'] == row for name in names]
        return ' / '.join(f'{mean(values):.1f}' for values in zip(*pairs, strict=True))

    names = list(results[0]['classes'])
    common = [name for name in names if name not in RARE]
    lines = [[name, *(cell(row, [name]) for row in rows)] for name in names]
    lines.append(['mean', *(cell(row, names) for row in rows)])
    lines.append(['mean of the common ones', *(cell(row, common) for row in rows)])
    return table(['class', *rows], lines)


if __name__ == '__main__':
    for argument in sys.argv[1:]:
        collect(Path(argument))
    PAGE.write_text(fill(PAGE.read_text(), 'camvid classes', made()))
