"""Panoptic quality from its definition (Kirillov et al., CVPR 2019), mask by mask in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Segment:
    """A segment of an image: its pixels (H, W) as booleans, its class, and whether it's a crowd."""

    mask: np.ndarray
    category: int
    crowd: bool = False


def panoptic_quality(
    images: list[tuple[list[Segment], list[Segment]]], things: set[int]
) -> dict[str, float]:
    """PQ, SQ and RQ in percent, over all classes, things (``_th``) and stuff (``_st``).

    Pixels of no true segment are void and count in no union. A prediction lying by more than half
    in void and in a crowd of its own class is neither right nor wrong. Classes with neither truth
    nor prediction are left out of the means.

    Args:
        images: For each image its true and its predicted segments.
        things: The classes that are things.
    """
    ious: dict[int, list[float]] = {}
    errors: dict[int, float] = {}
    for truth, predicted in images:
        known = np.logical_or.reduce([segment.mask for segment in truth])
        right: set[int] = set()
        for true in truth:
            if true.crowd:
                continue
            matched = False
            for index, guess in enumerate(predicted):
                if guess.category != true.category:
                    continue
                common = np.logical_and(true.mask, guess.mask).sum()
                union = np.logical_or(true.mask, np.logical_and(guess.mask, known)).sum()
                if 2 * common > union:
                    ious.setdefault(true.category, []).append(float(common) / float(union))
                    right.add(index)
                    matched = True
            if not matched:
                errors[true.category] = errors.get(true.category, 0.0) + 0.5
        for index, guess in enumerate(predicted):
            excused = ~known
            for true in truth:
                if true.crowd and true.category == guess.category:
                    excused = excused | true.mask
            if index in right or 2 * np.logical_and(guess.mask, excused).sum() > guess.mask.sum():
                continue
            errors[guess.category] = errors.get(guess.category, 0.0) + 0.5
    rows = {}
    for category in set(ious) | set(errors):
        found = ious.get(category, [])
        quality = sum(found) / len(found) if found else 0.0
        recognition = len(found) / (len(found) + errors.get(category, 0.0))
        rows[category] = (quality * recognition, quality, recognition)
    result = {}
    for suffix, wanted in (
        ('', set(rows)),
        ('_th', set(rows) & things),
        ('_st', set(rows) - things),
    ):
        for position, name in enumerate(('PQ', 'SQ', 'RQ')):
            values = [rows[category][position] for category in wanted]
            result[name + suffix] = 100 * sum(values) / len(values)
    return result
