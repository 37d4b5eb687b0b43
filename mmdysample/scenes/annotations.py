"""The truth of a frame in the formats of COCO, COCO panoptic, ADE and NYU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdysample.scenes.metainfo import CLASSES, PALETTE, STUFF, THINGS
from mmdysample.scenes.render import Frame

MIN_PIXELS = 20
"""An object that shows fewer pixels is not an instance: such objects of a class are one crowd
region (``iscrowd=1``), which COCO's metrics neither demand nor punish. Semantic map and depth hold
them like any other."""

DEPTH_SCALE = 1000
"""Depth pictures are uint16 in millimetres; 0 is a pixel without depth."""


@dataclass(frozen=True)
class Segment:
    """A visible region: an object, a class's crowd of tiny ones, or a kind of stuff.

    Attributes:
        label: Index into ``CLASSES``.
        mask: bool (H, W).
        crowd: Whether it gathers objects too small to count.
    """

    label: int
    mask: np.ndarray
    crowd: bool = False

    @property
    def thing(self) -> bool:
        """Whether the class is one of countable objects."""
        return self.label < len(THINGS)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) of the pixels' outer edges, tight."""
        rows, columns = (np.nonzero(self.mask.any(axis=axis))[0] for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def segments(frame: Frame) -> list[Segment]:
    """Part a frame into segments: objects first, then crowds, then stuff; each pixel in one."""
    found, tiny = [], np.zeros(frame.instance.shape, dtype=bool)
    instances, counts = np.unique(frame.instance[frame.instance > 0], return_counts=True)
    for instance, count in zip(instances, counts, strict=True):
        mask = frame.instance == instance
        if count < MIN_PIXELS:
            tiny |= mask
        else:
            found.append(Segment(int(frame.semantic[mask][0]), mask))
    for label, name in enumerate(CLASSES):
        mask = frame.semantic == label
        if name in THINGS:
            mask &= tiny
        if mask.any():
            found.append(Segment(label, mask, crowd=name in THINGS))
    return found


def run_lengths(mask: np.ndarray) -> dict:
    """Write COCO's uncompressed run-length code of a mask (H, W), exact to the pixel."""
    flat = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [0]])
    changes = np.nonzero(np.diff(flat))[0]
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    return dict(size=list(mask.shape), counts=counts[:-1] if counts[-1] == 0 else counts)


def instance_annotations(parts: list[Segment]) -> list[dict]:
    """Make COCO annotations of the things, but for ``id`` and ``image_id``."""
    return [
        dict(
            category_id=part.label + 1,
            bbox=list(part.box),
            area=part.area,
            iscrowd=int(part.crowd),
            segmentation=run_lengths(part.mask),
        )
        for part in parts
        if part.thing
    ]


def panoptic_annotation(parts: list[Segment]) -> tuple[np.ndarray, list[dict]]:
    """Make the panoptic picture, uint8 (H, W, 3), R + 256 G + 256² B = id, and segments_info."""
    ids, infos = np.zeros(parts[0].mask.shape, dtype=np.int32), []
    for number, part in enumerate(parts):
        # Ids near the class's colour make the pictures readable; the number makes them unique.
        red, green, _ = PALETTE[part.label]
        segment_id = red + 256 * green + 65536 * (number + 1)
        ids[part.mask] = segment_id
        infos.append(
            dict(
                id=segment_id,
                category_id=part.label + 1,
                iscrowd=int(part.crowd),
                bbox=list(part.box),
                area=part.area,
            )
        )
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8), infos


def depth_picture(frame: Frame) -> np.ndarray:
    """Give depth as uint16 (H, W), in millimetres."""
    return np.round(frame.depth * DEPTH_SCALE).astype(np.uint16)


def categories(panoptic: bool) -> list[dict]:
    """Make COCO's category table, ids from 1; the panoptic one has the stuff too, and colours."""
    if not panoptic:
        return [dict(id=i, name=name) for i, name in enumerate(THINGS, 1)]
    return [
        dict(id=i, name=name, isthing=int(name not in STUFF), color=list(colour))
        for i, (name, colour) in enumerate(zip(CLASSES, PALETTE, strict=True), 1)
    ]
