"""What the model of a row costs on this machine: parameters, MACs and time of a prediction."""

from __future__ import annotations

import hashlib
import json
import zlib
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch import nn
from torch.utils.benchmark import Timer

from mmdysample.engine.build import build_model
from mmdysample.engine.files import write_json
from mmdysample.engine.macs import macs_counted
from mmdysample.engine.provenance import device_name, provenance
from mmdysample.reproduce.results import cost_file
from mmdysample.reproduce.tables import Table
from mmdysample.upsamplers import Upsampler

ROUNDS, WARM_UP = 5, 10
"""Timed predictions, and those before: the first ones of a process can take twice as long."""


def build(cfg: Config) -> tuple[nn.Module, Any]:
    """Build the model, set to evaluation, and the test set of a config, as its runner would."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        return build_model(cfg), DATASETS.build(cfg.test_dataloader.dataset)


def measure_cost(table: Table, row: str, cfg: Config, work_dir: Path, device: str) -> None:
    """Measure a row's model on one image of its test data, and write it down.

    Weights are random: cost does not depend on them, but for the number of boxes that a detector
    keeps. The image has height and width, the latency is the median of :data:`ROUNDS`.
    """
    threads, digest = torch.get_num_threads(), config_digest(cfg)  # building may change it
    model, dataset = build(cfg)
    _draw_weights(model)
    model.to(device)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        sample = dataset[0]
        upsamplers = [module for module in model.modules() if isinstance(module, Upsampler)]
        predict = partial(_predict, model, sample)
        with macs_counted(upsamplers) as calls:
            predict()
        clock = Timer('predict()', globals=dict(predict=predict), num_threads=threads)
        clock.timeit(WARM_UP)
        seconds = median(clock.timeit(1).median for _ in range(ROUNDS))
    record = dict(
        params=sum(p.numel() for p in model.parameters()),
        upsampler_params=sum(p.numel() for m in upsamplers for p in m.parameters()),
        upsampler_macs=sum(calls),
        image=list(sample['inputs'].shape[-2:]),
        latency_ms=1e3 * seconds,
        rounds=ROUNDS,
        device=device_name(torch.device(device)),
        threads=threads,
        config=digest,
        **provenance(),
    )
    write_json(cost_file(work_dir, table, row), record)


def load_cost(work_dir: Path, table: Table, row: str) -> dict[str, Any] | None:
    """Read what :func:`measure_cost` wrote; None if nothing usable is there."""
    try:
        record = json.loads(cost_file(work_dir, table, row).read_text(encoding='utf-8'))
        return record if record['latency_ms'] > 0 and record['params'] > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def config_digest(cfg: Config) -> str:
    """Sum up a config: equal texts have equal sums."""
    return hashlib.sha256(cfg.pretty_text.encode()).hexdigest()


def _draw_weights(model: nn.Module) -> None:
    """Give layers of one name the same weights in all rows: detectors then keep as many boxes."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                weight.copy_(torch.randn(weight.shape, generator=generator) * weight.std())


@torch.inference_mode()
def _predict(model: nn.Module, sample: dict[str, Any]) -> None:
    model.test_step(pseudo_collate([sample]))
