"""Fill the tables of docs/detection.md from nuclei.json, panoptic.json and reproduce_demo.json.

A table whose JSON is not there says so.

Run from the repository root: python docs/benchmarks/detection.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean

from mmdysample.reproduce.tables import load_published

HERE = Path(__file__).parent
PAGE = HERE.parent / 'detection.md'
RELEASE = 'https://github.com/tiny-smart/detection-with-upsamplers/releases/download/checkpoint/'
RELEASED = ((50, 'dysample'), (50, 'dysample_plus'), (101, 'dysample_plus'))
MEMBERS = {'dysample': 'lpg4', 'dysample_plus': 'lpg4ds'}
PUBLISHED = {
    'faster_rcnn': ('object_detection_faster_rcnn_coco', {'ap': 'box AP'}),
    'mask_rcnn': (
        'instance_segmentation_mask_rcnn_coco',
        {'box_ap': 'box AP', 'mask_ap': 'mask AP'},
    ),
    'panoptic_fpn': ('panoptic_segmentation_panoptic_fpn_coco', {'pq': 'PQ'}),
}


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def tests_of(name: str) -> list[tuple[str, dict[str, float]]]:
    """Name and test result of each training in a JSON."""
    report = json.loads((HERE / f'{name}.json').read_text())
    return [(training['name'], training['test']) for training in report['trainings']]


def nuclei_table() -> str:
    """AP in percent; the first of each kind is the class's, at 300 detections."""
    header = ['Upsampler', 'box AP', 'AP50', 'AP75', 'mask AP', 'AP50', 'AP75', 'box, mask AP@100']
    rows = []
    for name, result in tests_of('nuclei'):
        row = [name]
        for kind in ('bbox', 'segm'):
            keys = ('nucleus_precision', f'{kind}_mAP_50', f'{kind}_mAP_75')
            row += [f'{100 * result[f"{kind}/{key}"]:.1f}' for key in keys]
        at_100 = [result[f'{kind}/{kind}_mAP'] for kind in ('bbox', 'segm')]
        rows.append([*row, ', '.join(f'{100 * value:.1f}' for value in at_100)])
    return table(header, rows)


def panoptic_table() -> str:
    """PQ, SQ and RQ over all classes, things and stuff; means over seeds."""
    names = [f'{name}{part}' for part in ('', '_th', '_st') for name in ('PQ', 'SQ', 'RQ')]
    runs = [(name, [result]) for name, result in tests_of('panoptic')]
    demo = json.loads((HERE / 'reproduce_demo.json').read_text())['tables']['panoptic_fpn']
    for row in ('nearest', 'dysample'):
        tests = [result['test'] for result in demo['results'] if result['row'] == row]
        runs.append((f'scenes, {row}, mean of {len(tests)} seeds', tests))
    rows = [
        [
            title,
            *(f'{fmean(test[f"coco_panoptic/{name}"] for test in tests):.1f}' for name in names),
        ]
        for title, tests in runs
    ]
    return table(['Data, upsampler', *names], rows)


def checkpoints_table() -> str:
    """The released files, our configs and what the authors report."""
    rows = []
    published = load_published()
    for model, (name, columns) in PUBLISHED.items():
        for depth, member in RELEASED:
            row = published[name][member + ('_r101' if depth == 101 else '')]
            file = f'{model}_r{depth}_fpn_dysample-{MEMBERS[member]}_1x_coco.pth'
            dashed = {name: name.replace('_', '-') for name in (model, member)}
            config = f'{dashed[model]}_r{depth}_fpn-{dashed[member]}_1x_coco.py'
            scores = ', '.join(f'{title} {row[key].value}' for key, title in columns.items())
            rows.append([f'[{file}]({RELEASE}{file})', f'`configs/{model}/{config}`', scores])
    return table(['Released file', 'Config', 'Published, val2017'], rows)


def main() -> None:
    """Fill in the tables."""
    text = PAGE.read_text()
    for name, make in (('nuclei', nuclei_table), ('panoptic', panoptic_table)):
        text = fill(text, name, make() if (HERE / f'{name}.json').exists() else 'Not measured yet.')
    PAGE.write_text(fill(text, 'checkpoints', checkpoints_table()))


def fill(text: str, name: str, made: str) -> str:
    """Put a table where the page marks its place."""
    pattern = rf'(<!-- table: {name} -->\n).*?(<!-- end -->)'
    return re.sub(pattern, lambda m: f'{m[1]}\n{made}\n\n{m[2]}', text, flags=re.S)


if __name__ == '__main__':
    main()
