"""Check that the folders of NYU Depth v2 and KITTI are complete, and say what is missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from mmdysample.depth.kitti import read_split

NYU_COUNTS = dict(train=24231, test=654)
KITTI_COUNTS = dict(train=23158, test=652)
"""Pictures with a depth map; the lists name 23 488 and 697."""
_SHOWN = 5


def check_nyu(root: Path) -> list[str]:
    """Look for what is wrong with NYU Depth v2 in mmseg's layout.

    Args:
        root (Path): Folder with ``images/{train,test}/*.jpg`` and
            ``annotations/{train,test}/*.png``, 16-bit PNG in millimetres.

    Returns:
        list[str]: One line per problem; empty if there is none.
    """
    problems = []
    for split, expected in NYU_COUNTS.items():
        pictures = {p.stem: p for p in (root / 'images' / split).glob('*.jpg')}
        depths = {p.stem: p for p in (root / 'annotations' / split).glob('*.png')}
        problems += _missing_folders(root / 'images' / split, root / 'annotations' / split)
        problems += _listed(f'{split}: no depth map for', sorted(set(pictures) - set(depths)))
        problems += _listed(f'{split}: no picture for', sorted(set(depths) - set(pictures)))
        both = sorted(set(pictures) & set(depths))
        problems += _wrong_count(split, len(both), expected)
        problems += _wrong_depth([depths[name] for name in both], scale=1000, farthest=10)
    return problems


def check_kitti(root: Path) -> list[str]:
    """Look for what is wrong with the KITTI Eigen split.

    Args:
        root (Path): Folder with ``kitti_eigen_{train,test}.txt``, ``input/`` and ``gt_depth/``,
            whose 16-bit PNG hold 1/256 m.

    Returns:
        list[str]: One line per problem; empty if there is none.
    """
    problems = _missing_folders(root / 'input', root / 'gt_depth')
    for split, expected in KITTI_COUNTS.items():
        file = root / f'kitti_eigen_{split}.txt'
        if not file.is_file():
            problems.append(f'{file}: list missing')
            continue
        try:
            pairs = [(p, d) for p, d in read_split(file.read_text()) if d is not None]
        except ValueError as error:
            problems.append(f'{file}: {error}')
            continue
        problems += _listed(
            f'{split}: listed but missing:',
            [p for p, _ in pairs if not (root / 'input' / p).is_file()],
        )
        depths = [root / 'gt_depth' / d for _, d in pairs]
        there = [path for path in depths if path.is_file()]
        problems += _listed(
            f'{split}: listed but missing:',
            [str(path.relative_to(root)) for path in depths if path not in set(there)],
        )
        problems += _wrong_count(split, len(pairs), expected)
        problems += _wrong_depth(there, scale=256, farthest=100)
    return problems


CHECKS: dict[str, Callable[[Path], list[str]]] = dict(nyu=check_nyu, kitti=check_kitti)


def _missing_folders(*folders: Path) -> list[str]:
    return [f'{folder}: folder missing' for folder in folders if not folder.is_dir()]


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return [f'{title} {", ".join(names[:_SHOWN])}{more}']


def _wrong_count(split: str, found: int, expected: int) -> list[str]:
    return [] if found == expected else [f'{split}: {found} pairs, the benchmark has {expected}']


def _wrong_depth(paths: Sequence[Path], scale: int, farthest: float) -> Iterable[str]:
    """Open the first, the middle and the last depth map."""
    for path in dict.fromkeys(paths[i] for i in (0, len(paths) // 2, -1) if paths):
        depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if depth is None:
            yield f'{path}: cannot be read'
        elif depth.dtype != np.uint16 or depth.ndim != 2:
            yield f'{path}: {depth.dtype} of shape {depth.shape}, not 16 bit with one channel'
        elif depth.max() > farthest * scale:
            yield f'{path}: up to {depth.max() / scale:.1f} m, if 1 m is {scale}; wrong scale?'


def main(argv: Sequence[str] | None = None) -> int:
    """Check a folder; the exit status is 0 if it is complete and 1 if it is not."""
    parser = argparse.ArgumentParser(description='Check a depth dataset and say what is missing')
    parser.add_argument('dataset', choices=sorted(CHECKS))
    parser.add_argument('root', type=Path, help='its folder, such as data/nyu')
    args = parser.parse_args(argv)
    problems = CHECKS[args.dataset](args.root)
    for problem in problems:
        sys.stderr.write(f'{problem}\n')
    if not problems:
        sys.stdout.write(f'{args.dataset} in {args.root} is complete\n')
    return 1 if problems else 0
