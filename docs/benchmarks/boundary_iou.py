"""Cost of BoundaryIoUMetric on top of an evaluation pass; writes boundary_iou.json beside itself.

Run from the repository root: python docs/benchmarks/boundary_iou.py
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmdysample.engine.provenance import provenance
from mmdysample.seg import BoundaryIoUMetric

CONFIG = 'configs/segformer/segformer_mit-b1_dysample-s-plus_8xb2-160k_ade20k-512x512.py'
SIZE = (512, 683)
CLASSES = 150
ROUNDS = 15


def main() -> None:
    """Time inference and both metrics in turns, so that a busy machine slows all alike."""
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    config = Config.fromfile(CONFIG)
    config.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config.model).to(device).eval()
    regions = torch.randint(0, 20, (1, 18, 23)).repeat_interleave(30, 1).repeat_interleave(30, 2)
    label = regions[:, : SIZE[0], : SIZE[1]].contiguous()
    meta = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE)
    sample = SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label))
    data = dict(inputs=[torch.randint(0, 256, (3, *SIZE)).byte()], data_samples=[sample])
    metrics = dict(iou=IoUMetric(), boundary_iou=BoundaryIoUMetric())
    for metric in metrics.values():
        metric.dataset_meta = dict(classes=range(CLASSES))

    times: dict[str, list[float]] = dict(inference=[], iou=[], boundary_iou=[])
    for _ in range(ROUNDS + 2):
        start = now(device)
        with torch.no_grad():
            result = model.test_step(data)[0].to_dict()
        times['inference'].append(now(device) - start)
        # An untrained model's noise would make neither metric slower; regions look like a result.
        result['pred_sem_seg']['data'] = label.roll(5, -1).to(device)
        for name, metric in metrics.items():
            start = now(device)
            metric.process(None, [result])
            times[name].append(now(device) - start)
    milliseconds = {name: round(median(t[2:]) * 1e3, 2) for name, t in times.items()}
    report = dict(
        **provenance(),
        device=torch.cuda.get_device_name() if device == 'cuda' else 'CPU',
        threads=torch.get_num_threads(),
        config=CONFIG,
        size=SIZE,
        rounds=ROUNDS,
        median_ms=milliseconds,
        boundary_iou_on_top_of_the_pass=round(
            milliseconds['boundary_iou'] / (milliseconds['inference'] + milliseconds['iou']), 4
        ),
        boundary_iou_over_iou=round(milliseconds['boundary_iou'] / milliseconds['iou'], 3),
    )
    Path(__file__).with_suffix('.json').write_text(json.dumps(report, indent=2) + '\n')


def now(device: str) -> float:
    """Seconds, after all that was asked of the device is done."""
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == '__main__':
    main()
