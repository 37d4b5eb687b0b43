"""What the models of a table cost on this machine: parameters, MACs and time of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import nn

from mmdysample.costs.stopwatch import device_name, measure, spread
from mmdysample.engine.provenance import provenance
from mmdysample.reproduce.job import load_row_config
from mmdysample.reproduce.results import cost_file, write_once
from mmdysample.reproduce.tables import Row, Table
from mmdysample.upsamplers import Upsampler

ROUNDS = 5


def measure_costs(
    table: Table, rows: Sequence[Row], work_dir: Path, overrides: Sequence[str] = ()
) -> Path | None:
    """Measure a table's models once, side by side, on one image of its test data.

    Weights are random: cost does not depend on them, but for the number of boxes that a detector
    keeps. Rows that these are compared with are measured too.

    Args:
        table (Table): The table.
        rows (Sequence[Row]): Rows to measure.
        work_dir (Path): Folder of all results.
        overrides (Sequence[str]): KEY=VALUE entries that change every config. Defaults to none.

    Returns:
        Path: The file that :func:`mmdysample.reproduce.results.load_costs` reads; None if there is
        nothing to measure with, because the baseline has no config.
    """
    path = cost_file(work_dir, table)
    if path.exists() or not table.baseline.config:
        return path if path.exists() else None
    needed = {row.name: row for row in rows}
    needed |= {base.name: base for base in map(table.compared_with, rows) if base}
    rows = [row for row in table.rows.values() if row.name in needed]
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    configs = [load_row_config(row, overrides) for row in rows]
    models = {row.name: _build(cfg, device) for row, cfg in zip(rows, configs, strict=True)}
    bases = {row.name: (table.compared_with(row) or row).name for row in rows}
    for name, model in models.items():  # so that the detectors see the same boxes
        model.load_state_dict(models[bases[name]].state_dict(), strict=False)
    data, image = _sample(configs[0])
    macs = [_count(model, data) for model in models.values()]
    runs = [partial(_predict, model, data) for model in models.values()]
    times, _ = measure(runs, ROUNDS, device, graphs=False)
    medians = {
        name: spread(seconds)['median_ms'] for name, seconds in zip(models, times, strict=True)
    }
    record = {
        name: dict(
            params=sum(p.numel() for p in model.parameters()),
            upsampler_params=sum(
                p.numel()
                for module in model.modules()
                if isinstance(module, Upsampler)
                for p in module.parameters()
            ),
            upsampler_macs=count,
            image=image,
            latency_ms=medians[name],
            latency_ratio=medians[name] / medians[bases[name]],
        )
        for (name, model), count in zip(models.items(), macs, strict=True)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    run = dict(rounds=ROUNDS, device=device_name(device), threads=torch.get_num_threads())
    with suppress(FileExistsError):  # another task of an array was quicker
        write_once(path, dict(rows=record, **run, **provenance()))
    return path


def _build(cfg: Config, device: torch.device) -> nn.Module:
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    return model.to(device).eval()


def _sample(cfg: Config) -> tuple[dict[str, Any], list[int]]:
    """One batch of one image, and the image's height and width as the model sees it."""
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    sample = dataset[0]
    return pseudo_collate([sample]), list(sample['inputs'].shape[-2:])


def _predict(model: nn.Module, data: dict[str, Any]) -> list[BaseDataElement]:
    # The models write their predictions into the samples, but read none of them.
    with torch.inference_mode():
        return model.test_step(dict(data))


def _count(model: nn.Module, data: dict[str, Any]) -> int:
    """Let every upsampler of a model count its calls in one prediction."""
    calls: list[int] = []

    def count(module: Upsampler, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else kwargs['x']
        height, width = (int(side) for side in x.shape[-2:])
        calls.append(module.macs(height, width))

    hooks = [
        module.register_forward_pre_hook(count, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, Upsampler)
    ]
    _predict(model, data)
    for hook in hooks:
        hook.remove()
    return sum(calls)
