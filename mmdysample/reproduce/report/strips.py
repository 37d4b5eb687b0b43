"""Pictures of truth and predictions side by side, kept until a checkpoint changes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmdysample.engine.errors import UsageError
from mmdysample.engine.files import write_whole
from mmdysample.reproduce.report.draw import Panels, join
from mmdysample.reproduce.report.predict import Predictor, files_of
from mmdysample.reproduce.report.runs import find_runs
from mmdysample.reproduce.report.views import View
from mmdysample.reproduce.results import Result
from mmdysample.reproduce.tables import Table

_FORM = 2  # raised whenever the same predictions are drawn in another way
_FEW_CLASSES = 20  # so many are all explained, seen or not
_NOTE = 'strip'  # key of the description in a picture's file


def draw_strips(
    work_dir: Path, table: Table, folder: Path, count: int
) -> tuple[list[dict[str, Any]], str]:
    """Draw image, truth, the baseline's prediction and DySample's for some pictures of a table.

    Pictures that cannot be drawn never keep the rest from being reported.

    Args:
        work_dir (Path): Work dir of the runs.
        table (Table): Which table.
        folder (Path): Where the pictures are kept.
        count (int): How many, spread evenly over the test set.

    Returns:
        tuple: A description of each picture (``file`` in the folder, ``image``, ``index``,
        ``seed``, ``titles``, ``window``, ``classes``, ``depth_range``), and why there is none.
    """
    if count < 1:
        return [], ''
    results = [run.result for run in find_runs(work_dir, table) if run.result]
    pair = choose_pair(table, results)
    if not pair:
        return [], (
            f'they need finished runs of {table.baseline.name} and of a DySample row with the '
            'same seed.'
        )
    try:
        missing = [path for result in pair for path in files_of(result) if not path.is_file()]
        if missing:
            raise UsageError(f'{missing[0].relative_to(work_dir)} is not there any more')
        stem = f'{table.scale}-{table.name}-{_key(pair, count)}'
        return _kept(folder, stem) or _drawn(table, pair, folder, stem, count), ''
    except Exception as error:  # whatever a model, its data or its config may raise
        name = '' if isinstance(error, UsageError) else f'{type(error).__name__}: '
        return [], f'{name}{error}'.replace(f'{work_dir}/', '')


def choose_pair(table: Table, results: Sequence[Result]) -> tuple[Result, Result] | None:
    """Choose the two runs to show: the baseline and a DySample row, of the lowest seed of both.

    The row is ``dysample`` if that has run, else ``dysample_plus``, else the first other one.
    """
    by_row: dict[str, dict[int, Result]] = {}
    for result in results:
        by_row.setdefault(result.row, {})[result.seed] = result
    members = [row for row in table.rows if row.startswith('dysample')]
    members.sort(key=lambda row: (row != 'dysample', not row.startswith('dysample_plus')))
    baseline = by_row.get(table.baseline.name, {})
    for member in members:
        seeds = sorted(by_row.get(member, {}).keys() & baseline.keys())
        if seeds:
            return baseline[seeds[0]], by_row[member][seeds[0]]
    return None


def _key(pair: Sequence[Result], count: int) -> str:
    """Sum up all that decides how the pictures look."""
    marks = [_FORM, count]
    for result in pair:
        for path in files_of(result):
            status = path.stat()
            marks += [result.row, result.seed, path.name, status.st_size, status.st_mtime_ns]
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:12]


def _kept(folder: Path, stem: str) -> list[dict[str, Any]]:
    """Read the descriptions of pictures that were drawn before; none if any is missing."""
    found = []
    for path in sorted(folder.glob(f'{stem}-*.png')):
        try:
            with Image.open(path) as picture:
                found.append(json.loads(picture.text[_NOTE]))
        except (OSError, ValueError, KeyError):
            return []
    return [
        {key: value for key, value in note.items() if key != 'of'}
        for note in found
        if note['of'] == len(found)
    ]


def _drawn(
    table: Table, pair: Sequence[Result], folder: Path, stem: str, count: int
) -> list[dict[str, Any]]:
    predictors = [Predictor(result, table.task) for result in pair]
    total = len(predictors[0])
    indices = np.linspace(0, total - 1, min(count, total)).astype(int).tolist()
    described = []
    for number, index in enumerate(indices):
        strip, note = _strip(table, pair, predictors, index)
        note = dict(file=f'{stem}-{number}.png', **note)
        _save(folder / note['file'], strip, dict(note, of=len(indices)))
        described.append(note)
    return described


def _strip(
    table: Table, pair: Sequence[Result], predictors: Sequence[Predictor], index: int
) -> tuple[np.ndarray, dict[str, Any]]:
    first = predictors[0]
    name, pixels, truth, prediction = first.picture(index)
    views = [truth, prediction, *(other.picture(index)[3] for other in predictors[1:])]
    depth_range = _depth_range(views) if table.task == 'depth' else None
    outlined = table.task in ('instance', 'panoptic')
    panels = Panels(pixels, truth, first.palette, outlined, depth_range)
    strip = join([panels.draw(view) for view in (None, *views)])
    labels = sorted({label for view in views for label in view.labels})
    if labels and len(first.classes) <= _FEW_CLASSES:
        labels = list(range(len(first.classes)))
    return strip, dict(
        image=name,
        index=index,
        seed=pair[0].seed,
        titles=['image', 'truth', *(result.row for result in pair)],
        window=panels.window,
        classes={first.classes[label]: _hex(first.palette[label]) for label in labels},
        depth_range=depth_range,
    )


def _depth_range(views: Sequence[View]) -> tuple[float, float]:
    """Find the nearest and the farthest depth of all views."""
    values = np.concatenate([view.depth.ravel() for view in views])
    values = values[np.isfinite(values) & (values > 0)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def _hex(colour: Sequence[int]) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*colour)


def _save(path: Path, strip: np.ndarray, note: dict[str, Any]) -> None:
    info = PngInfo()
    info.add_itxt(_NOTE, json.dumps(note))
    content = io.BytesIO()
    Image.fromarray(strip).save(content, 'PNG', pnginfo=info, optimize=True)
    write_whole(path, content.getvalue())
