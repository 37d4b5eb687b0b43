r"""Gather finished trainings and their tests into one JSON file: all that was logged, unrounded.

From the repository root, with one NAME=WORK_DIR for each training; the newest test is read from
WORK_DIR_test, where there is one:

    python docs/benchmarks/trainings.py docs/benchmarks/bccd.json \
        nearest=work_dirs/bccd/faster-rcnn_r18_fpn_12e_bccd \
        dysample=work_dirs/bccd/faster-rcnn_r18_fpn-dysample_12e_bccd
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config

from mmdysample.engine.provenance import device_name, provenance


def read_training(name: str, work_dir: Path) -> dict:
    """What a work dir says: config, seed, every logged record of all its runs, the test."""
    (config_file,) = work_dir.glob('*.py')
    config = Config.fromfile(config_file)
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    tests = sorted(Path(f'{work_dir}_test').glob('*/*.json'))
    return dict(
        name=name,
        config=config_file.name,
        seed=config.get('randomness', {}).get('seed'),
        runs=[[json.loads(line) for line in log.read_text().splitlines()] for log in logs],
        test=json.loads(tests[-1].read_text()) if tests else None,
    )


def main(out: str, *trainings: str) -> None:
    """Write the file."""
    pairs = [training.partition('=')[::2] for training in trainings]
    report = dict(
        provenance=provenance(),
        device=device_name(torch.device('cuda' if torch.cuda.is_available() else 'cpu')),
        trainings=[read_training(name, Path(work_dir)) for name, work_dir in pairs],
    )
    Path(out).write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
