"""Learning curves: what trainings logged, smoothed and summed up over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmdysample.reproduce.results import Result
from mmdysample.reproduce.tables import Table

POINTS = 150
"""Points of a curve at most."""

_WINDOW = 20
"""A loss is averaged over one part in so many of the training."""


def learning_curves(table: Table, results: Sequence[Result]) -> dict[str, Any]:
    """Sum up the curves of a table's rows.

    Args:
        table (Table): Whose leading metric is followed in validation.
        results (Sequence[Result]): Finished runs of the table.

    Returns:
        dict: ``loss`` and ``validation``, each a dict from row to ``step``, ``mean``, ``low`` and
        ``high`` (lists: mean, least and greatest over seeds); rows without records are left out.
        ``axis`` is what the steps of validation count, 'epoch' or 'iteration'.
    """
    metric = next(iter(table.metrics.values()))
    losses, validations = {}, {}
    by_epoch = False
    for row in table.rows:
        scalars = [result.record.get('scalars') or [] for result in results if result.row == row]
        trainings = [[r for r in records if 'loss' in r] for records in scalars]
        by_epoch = by_epoch or any('epoch' in r for records in trainings for r in records)
        loss = [_smooth(_points(records, 'loss')) for records in trainings]
        validation = [
            _points((r for r in records if 'loss' not in r), metric.key, metric.times)
            for records in scalars
        ]
        losses[row] = _over_seeds([points for points in loss if points])
        validations[row] = _over_seeds([points for points in validation if points])
    return dict(
        loss={row: curve for row, curve in losses.items() if curve},
        validation={row: curve for row, curve in validations.items() if curve},
        axis='epoch' if by_epoch else 'iteration',
    )


def _points(records: Iterable[dict], key: str, times: float = 1) -> dict[float, float]:
    """Take a value by step; a step done again after an interruption counts as it was done last."""
    return {
        record['step']: record[key] * times
        for record in records
        if 'step' in record and key in record and math.isfinite(record[key]) and record[key] != -1
    }


def _smooth(points: dict[float, float]) -> dict[float, float]:
    """Average over a window that shrinks at both ends, so that no end is bent."""
    steps = sorted(points)
    values = np.array([points[step] for step in steps], dtype=float)
    reach = len(steps) // (2 * _WINDOW)
    smooth = {}
    for index, step in enumerate(steps):
        near = min(reach, index, len(steps) - 1 - index)
        smooth[step] = float(values[index - near : index + near + 1].mean())
    return smooth


def _over_seeds(curves: Sequence[dict[float, float]]) -> dict[str, list[float]] | None:
    """Average curves, each read between its points, where all of them have begun and not ended."""
    if not curves:
        return None
    first = max(min(curve) for curve in curves)
    last = min(max(curve) for curve in curves)
    steps = sorted({step for curve in curves for step in curve if first <= step <= last})
    if len(steps) > POINTS:
        chosen = np.linspace(0, len(steps) - 1, POINTS).round().astype(int)
        steps = [steps[index] for index in chosen]
    if not steps:
        return None
    values = np.array([np.interp(steps, sorted(c), [c[s] for s in sorted(c)]) for c in curves])
    return dict(
        step=steps,
        mean=values.mean(axis=0).tolist(),
        low=values.min(axis=0).tolist(),
        high=values.max(axis=0).tolist(),
    )
