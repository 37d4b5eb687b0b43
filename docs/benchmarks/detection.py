"""Gather test results into nuclei.json and panoptic.json; fill the tables of docs/detection.md.

Run from the repository root. Results are taken from the work dirs that the commands below leave;
where there are none, the JSON that is there already is used: python docs/benchmarks/detection.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mmdysample.analysis.provenance import provenance
from mmdysample.analysis.published import load_published

HERE = Path(__file__).parent
PAGE = HERE.parent / 'detection.md'
NUCLEI = 'configs/nuclei/mask-rcnn_r18_fpn{}_12e_nuclei.py'
DEMO = 'configs/demo/panoptic-fpn_r18_fpn{}_demo.py'
OVERFIT = 'configs/coco_sample/panoptic-fpn_r18_fpn-dysample_overfit_coco-sample.py'
RUNS = {
    'nuclei': [
        ('nearest', NUCLEI.format(''), 'epoch_12.pth'),
        ('dysample', NUCLEI.format('-dysample'), 'epoch_12.pth'),
        ('dysample_plus', NUCLEI.format('-dysample-plus'), 'epoch_12.pth'),
    ],
    'panoptic': [
        ('two COCO images, dysample', OVERFIT, 'iter_400.pth'),
        ('scenes, nearest', DEMO.format(''), 'epoch_12.pth'),
        ('scenes, dysample', DEMO.format('-dysample'), 'epoch_12.pth'),
    ],
}
RELEASE = 'https://github.com/tiny-smart/detection-with-upsamplers/releases/download/checkpoint/'
PUBLISHED = {
    'faster_rcnn': ('object_detection_faster_rcnn_coco', ('ap',)),
    'mask_rcnn': ('instance_segmentation_mask_rcnn_coco', ('box_ap', 'mask_ap')),
    'panoptic_fpn': ('panoptic_segmentation_panoptic_fpn_coco', ('pq',)),
}
RELEASED = ((50, 'dysample'), (50, 'dysample_plus'), (101, 'dysample_plus'))
MEMBERS = {'dysample': 'lpg4', 'dysample_plus': 'lpg4ds'}


def gather(name: str) -> dict:
    """Write a JSON from the work dirs, if there are any, and return what it holds."""
    path = HERE / f'{name}.json'
    runs = []
    for row, config, checkpoint in RUNS[name]:
        work_dir = Path('work_dirs') / Path(config).stem
        results = sorted(work_dir.glob('test/*/*.json'))
        if not results:
            continue
        runs.append(
            dict(
                row=row,
                commands=[
                    f'python tools/train.py {config}',
                    f'python tools/test.py {config} {work_dir}/{checkpoint} '
                    f'--work-dir {work_dir}/test',
                ],
                seed=0,
                result=json.loads(results[-1].read_text()),
            )
        )
    if runs:
        head = provenance() | dict(device='CPU, one thread a run')
        path.write_text(json.dumps(head | dict(runs=runs), indent=1) + '\n')
    return json.loads(path.read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def nuclei_table() -> str:
    """AP in percent; the first of each kind is the class's, at 300 detections."""
    header = ['Upsampler', 'box AP', 'AP50', 'AP75', 'mask AP', 'AP50', 'AP75', 'box, mask AP@100']
    rows = []
    for run in gather('nuclei')['runs']:
        result = run['result']
        row = [run['row']]
        for kind in ('bbox', 'segm'):
            keys = ('nucleus_precision', f'{kind}_mAP_50', f'{kind}_mAP_75')
            row += [f'{100 * result[f"{kind}/{key}"]:.1f}' for key in keys]
        at_100 = [result[f'{kind}/{kind}_mAP'] for kind in ('bbox', 'segm')]
        rows.append([*row, ', '.join(f'{100 * value:.1f}' for value in at_100)])
    return table(header, rows)


def panoptic_table() -> str:
    """PQ, SQ and RQ over all classes, things and stuff."""
    names = [f'{name}{part}' for part in ('', '_th', '_st') for name in ('PQ', 'SQ', 'RQ')]
    rows = [
        [run['row'], *(f'{run["result"][f"coco_panoptic/{name}"]:.1f}' for name in names)]
        for run in gather('panoptic')['runs']
    ]
    return table(['Data, upsampler', *names], rows)


def checkpoints_table() -> str:
    """The released files, our configs and what the authors report."""
    rows = []
    published = load_published()
    for model, (name, columns) in PUBLISHED.items():
        for depth, member in RELEASED:
            row = published[name][member + ('_r101' if depth == 101 else '')]
            stem = f'{model}_r{depth}_fpn_dysample-{MEMBERS[member]}_1x_coco.pth'
            dashed = f'{model.replace("_", "-")}_r{depth}_fpn-{member.replace("_", "-")}_1x_coco'
            scores = ', '.join(
                f'{column.replace("_", " ").replace("ap", "AP").replace("pq", "PQ")} '
                f'{row[column].value}'
                for column in columns
            )
            rows.append([f'[{stem}]({RELEASE}{stem})', f'`configs/{model}/{dashed}.py`', scores])
    return table(['Released file', 'Config', 'Published, val2017'], rows)


def main() -> None:
    """Write the JSONs and the tables."""
    text = PAGE.read_text()
    for name, made in (
        ('nuclei', nuclei_table()),
        ('panoptic', panoptic_table()),
        ('checkpoints', checkpoints_table()),
    ):
        pattern = rf'(<!-- table: {name} -->\n).*?(<!-- end -->)'
        text = re.sub(pattern, lambda m, made=made: f'{m[1]}\n{made}\n\n{m[2]}', text, flags=re.S)
    PAGE.write_text(text)


if __name__ == '__main__':
    main()
