"""What depth of scenes is worth without looking: the training median at each pixel, tested.

From the repository root, after data/scenes has been rendered: python docs/benchmarks/depth_prior.py
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import torch

from mmdysample.depth.metric import depth_errors
from mmdysample.engine.provenance import provenance


def load(split: str) -> np.ndarray:
    """Depth maps ``(N, H, W)`` in metres, NaN where there is none."""
    paths = sorted(Path('data/scenes/depth', split).glob('*.png'))
    depth = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]) / 1000
    return np.where(depth > 0, depth, np.nan)


def main() -> None:
    """Write the JSON beside this file."""
    train, val = load('train'), load('val')
    flipped = np.concatenate((train, train[..., ::-1]))  # as training flips
    median = np.nanmedian(flipped, axis=0)
    errors = []
    for truth in val:
        valid = np.isfinite(truth) & np.isfinite(median)
        errors.append(depth_errors(torch.tensor(truth[valid]), torch.tensor(median[valid])))
    test = {name: mean(error[name] for error in errors) for name in errors[0]}
    report = dict(provenance=provenance(), pictures=len(val), test=test)
    Path(__file__).with_suffix('.json').write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
