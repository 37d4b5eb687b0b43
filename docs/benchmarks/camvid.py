"""Gather the logs of CamVid trainings into camvid.json beside this file, and print their table.

Run from the repository root after the trainings: python docs/benchmarks/camvid.py
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from mmdysample.analysis.provenance import provenance

UPSAMPLERS = ('bilinear', 'carafe', 'dysample', 'dysample-s-plus')
CONFIG = 'configs/camvid/segformer_r18_{}_12e_camvid.py'
WORK_DIRS = 'work_dirs'


def read_run(upsampler: str, work_dir: Path) -> dict:
    """The last complete log in a work dir, with the command that made it."""
    log = max(work_dir.glob('*/vis_data/scalars.json'))
    seed = int(work_dir.name.rpartition('seed')[2])
    config = CONFIG.format(upsampler)
    return dict(
        upsampler=upsampler,
        seed=seed,
        command=f'python tools/train.py {config} --seed {seed} --work-dir {work_dir}',
        log=[json.loads(line) for line in log.read_text().splitlines()],
    )


def main() -> None:
    """Write the JSON and print the table."""
    runs = [
        read_run(upsampler, work_dir)
        for upsampler in UPSAMPLERS
        for work_dir in sorted(Path(WORK_DIRS).glob(f'camvid_{upsampler}_seed*'))
    ]
    report = dict(**provenance(), device=f'{os.cpu_count()} CPU cores, one a run', runs=runs)
    Path(__file__).with_suffix('.json').write_text(json.dumps(report, indent=1) + '\n')

    scores = defaultdict(list)
    for run in runs:
        final = [record for record in run['log'] if 'bIoU' in record][-1]
        scores[run['upsampler']].append((final['mIoU'], final['bIoU']))
    lines = ['| upsampler | runs | mIoU | bIoU |', '|---|---|---|---|']
    for upsampler, values in scores.items():
        columns = [spread(column) for column in zip(*values, strict=True)]
        lines.append(f'| {upsampler} | {len(values)} | {" | ".join(columns)} |')
    sys.stdout.write('\n'.join(lines) + '\n')


def spread(values: tuple[float, ...]) -> str:
    """Mean and, of several runs, standard deviation."""
    if len(values) == 1:
        return f'{values[0]:.2f}'
    return f'{mean(values):.2f} ± {stdev(values):.2f}'


if __name__ == '__main__':
    main()
