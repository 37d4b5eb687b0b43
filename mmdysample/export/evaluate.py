"""The evaluator of a config on a model, whether PyTorch or a runtime computes its network."""

from __future__ import annotations

import tempfile

from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mmdysample.engine.data_check import check_data_paths


def evaluate(model: nn.Module, cfg: Config) -> dict[str, float]:
    """Run the test loop of a config.

    Args:
        model (nn.Module): A detector or a segmentor, for instance from :func:`load_exported`.
        cfg (Config): With the test data and the evaluator.

    Returns:
        dict[str, float]: The metrics.

    Raises:
        MissingDataError: If the data are not where the config says.
    """
    check_data_paths(cfg, splits=('test',))
    with tempfile.TemporaryDirectory() as work_dir:
        runner = Runner(
            model=model,
            work_dir=work_dir,
            test_dataloader=cfg.test_dataloader,
            test_cfg=cfg.test_cfg,
            test_evaluator=cfg.test_evaluator,
            default_scope=cfg.get('default_scope', 'mmengine'),
            log_level='ERROR',
            experiment_name=f'export_{id(model)}',  # mmengine keeps its loggers by this name
        )
        return {name: float(value) for name, value in runner.test().items()}
