"""The model of a config, and the data set that its wrappers hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config as its runner would, in evaluation mode."""
    model = dict(cfg.model, _scope_=cfg.get('default_scope'))
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(model).eval()


def inner_dataset(cfg: Config) -> ConfigDict:
    """Find the data set below the wrappers of the test set; empty where there is no test set."""
    dataset = (cfg.get('test_dataloader') or ConfigDict()).get('dataset') or ConfigDict()
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def dataset_meta(cfg: Config, noted: Mapping[str, Any]) -> dict[str, Any]:
    """Tell classes and colours.

    Args:
        cfg (Config): Its test set says what is not noted, if there is one.
        noted (Mapping[str, Any]): What a training noted, under names in any case.

    Returns:
        dict[str, Any]: ``classes``, ``palette`` and whatever else is known.
    """
    known = {key.lower(): value for key, value in noted.items()}
    dataset = dict(inner_dataset(cfg), lazy_init=True, pipeline=[])  # neither reads nor renders
    dataset.pop('scenes', None)
    if 'classes' in known or 'type' not in dataset:
        return known
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        return {**DATASETS.build(dataset).metainfo, **known}
