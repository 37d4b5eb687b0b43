"""Predictions of a finished run for single pictures of its test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope

from mmdysample.engine.checkpoint import load_from_local, require_safe_loading
from mmdysample.reproduce.report.views import View, prediction_of, truth_of
from mmdysample.reproduce.results import Result


class Predictor:
    """The model of a finished run and its test set, on the CPU.

    Args:
        result (Result): The run; its config and its checkpoint are read.
        task (str): A table's.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        RefusedCheckpointError: If the checkpoint holds more than weights and training state.
    """

    def __init__(self, result: Result, task: str) -> None:
        self.task = task
        require_safe_loading()
        config, checkpoint = files_of(result)
        weights = load_from_local(str(checkpoint), map_location='cpu')
        cfg = Config.fromfile(config)
        model = cfg.model
        if cfg.get('data_preprocessor') is not None:
            model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as the runner does
        self.scope = cfg.get('default_scope', 'mmengine')
        with DefaultScope.overwrite_default_scope(self.scope):
            self.dataset = DATASETS.build(cfg.test_dataloader.dataset)
            self.model = MODELS.build(model).eval()
        self.model.load_state_dict(weights['state_dict'])
        meta = self.dataset.metainfo
        self.classes = list(meta.get('classes') or [])
        palette = (
            meta.get('palette') or np.random.RandomState(0).randint(40, 230, (999, 3)).tolist()
        )
        self.palette = [tuple(colour) for colour in palette]

    def __len__(self) -> int:
        return len(self.dataset)

    def picture(self, index: int) -> tuple[str, np.ndarray, View, View]:
        """Read a picture and predict.

        Args:
            index (int): Which one.

        Returns:
            tuple: Name of the picture's file, its pixels ``(H, W, 3)`` as RGB, the truth, and
            the prediction.
        """
        import mmcv

        with DefaultScope.overwrite_default_scope(self.scope), torch.no_grad():
            info = self.dataset.get_data_info(index)
            data = self.dataset[index]
            truth_sample = data['data_samples']
            truth = truth_of(self.task, info, truth_sample)
            (sample,) = self.model.test_step(pseudo_collate([data]))
        pixels = mmcv.imread(info['img_path'], channel_order='rgb')
        box: Any = sample.metainfo.get('crop_box')
        if box:
            pixels = pixels[box[0] : box[1], box[2] : box[3]]
        prediction = prediction_of(self.task, sample, len(self.classes))
        return Path(info['img_path']).name, pixels, truth, prediction


def files_of(result: Result) -> tuple[Path, Path]:
    """Say where a run's config and its checkpoint are."""
    return (
        result.folder / result.record['config_dump'],
        result.folder / result.record['checkpoint'],
    )
