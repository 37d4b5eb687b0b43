"""Checks that the data which a config names is there, before anything is built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdysample.engine.errors import MissingDataError

#: Keys of an evaluator that name files it reads (others name files that it writes).
_EVALUATOR_INPUTS = ('ann_file', 'seg_prefix')


def check_data_paths(cfg: Mapping, splits: Sequence[str]) -> None:
    """Raise if a dataset or an evaluator names a file or folder that does not exist.

    Wrapped and concatenated datasets are followed. A dataset with a ``scenes`` key renders its
    files when it is built, so neither it nor its evaluator is checked; remote paths aren't either.

    Args:
        cfg (Mapping): A full config.
        splits (Sequence[str]): Which of 'train', 'val' and 'test' the command needs.

    Raises:
        MissingDataError: One line for each missing path, with the config key that names it.
    """
    missing = [
        f'{key} = {path}'
        for split in splits
        for key, path in _split_paths(cfg, split)
        if not os.path.exists(path)
    ]
    if missing:
        raise MissingDataError(
            'the config names data that does not exist:\n  '
            + '\n  '.join(dict.fromkeys(missing))
            + '\nDownload or link the data there, or set the keys in the config or with '
            '--cfg-options.'
        )


def _split_paths(cfg: Mapping, split: str) -> Iterator[tuple[str, str]]:
    """Yield (config key, path) for every local input of a split."""
    rendered = False
    for loader_key, loader in _items(cfg.get(f'{split}_dataloader'), f'{split}_dataloader'):
        for key, dataset in _leaf_datasets(loader.get('dataset'), f'{loader_key}.dataset'):
            if dataset.get('scenes') is not None:
                rendered = True
            else:
                yield from _dataset_paths(dataset, key)
    if rendered:
        return
    for key, evaluator in _items(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
        for name in _EVALUATOR_INPUTS:
            if _is_local(evaluator.get(name)) and not evaluator.get('backend_args'):
                yield f'{key}.{name}', evaluator[name]


def _items(value: Any, key: str) -> Iterator[tuple[str, Mapping]]:
    """Yield (key, dict) for a dict or for each dict of a list."""
    if isinstance(value, Mapping):
        yield key, value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _items(item, f'{key}[{index}]')


def _leaf_datasets(dataset: Any, key: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the datasets that read files, below any wrappers."""
    for item_key, item in _items(dataset, key):
        inner = [name for name in ('dataset', 'datasets') if name in item]
        for name in inner:
            yield from _leaf_datasets(item[name], f'{item_key}.{name}')
        if not inner:
            yield item_key, item


def _dataset_paths(dataset: Mapping, key: str) -> Iterator[tuple[str, str]]:
    """Yield the inputs of one dataset, joined to its root as MMEngine's BaseDataset does."""
    if dataset.get('backend_args'):
        return
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or {}
    prefixes = prefix if isinstance(prefix, Mapping) else {'': prefix}
    named = {'ann_file': dataset.get('ann_file')}
    named |= {f'data_prefix.{name}'.rstrip('.'): path for name, path in prefixes.items()}
    for name, path in named.items():
        if _is_local(path) and _is_local(root or '.'):
            yield f'{key}.{name}', os.path.join(root, path)
    if root and _is_local(root) and not any(named.values()):
        yield f'{key}.data_root', root


def _is_local(path: Any) -> bool:
    return isinstance(path, str) and path != '' and '://' not in path
