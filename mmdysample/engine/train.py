"""Training of MMDetection and MMSegmentation configs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.device import get_device

from mmdysample.engine.checkpoint import last_to_resume, newest_to_resume
from mmdysample.engine.data_check import check_data_paths
from mmdysample.engine.errors import RefusedCheckpointError, UsageError
from mmdysample.engine.faults import faults_explained
from mmdysample.engine.launch import (
    add_common_arguments,
    build_runner,
    check_checkpoint_exists,
    load_config,
    run_tool,
)
from mmdysample.engine.provenance import note_training


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the training tool."""
    parser = argparse.ArgumentParser(description='Train a detector or a segmentor')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from CHECKPOINT, or without one from the newest in the work dir, if any',
    )
    parser.add_argument('--amp', action='store_true', help='train in automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the real batch size (auto_scale_lr in the config)',
    )
    parser.add_argument('--seed', type=int, help='random seed (default: the config, else random)')
    parser.add_argument(
        '--deterministic', action='store_true', help='use deterministic kernels only'
    )
    parser.add_argument(
        '--tensorboard',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='log to TensorBoard too, where it is installed',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def train(args: argparse.Namespace) -> None:
    """Train the model of a config.

    Raises:
        UsageError: If the config, its data, the checkpoint or an option cannot work.
    """
    cfg = load_config(args)
    if args.amp:
        _enable_amp(cfg)
    if args.auto_scale_lr:
        _enable_auto_scale_lr(cfg)
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    if args.deterministic:
        cfg.randomness = dict(cfg.get('randomness') or {}, deterministic=True)
    if args.tensorboard:
        _log_to_tensorboard(cfg)
    check_data_paths(cfg, splits=('train', 'val'))
    resumes_last = _set_start(cfg, args.resume)
    runner = build_runner(cfg)
    note_training(runner.work_dir)
    try:
        with faults_explained(runner, training=True):
            runner.train()
    except RefusedCheckpointError as error:
        if resumes_last:
            raise RefusedCheckpointError(f'{error} {_advice(cfg.work_dir)}') from error
        raise


def _set_start(cfg: Config, resume: str | None) -> bool:
    """Set where a training starts; tell whether that is the last checkpoint of its work dir.

    Where there is none to resume, the weights that the config starts from stay.
    """
    resumes_last = resume == 'auto' or (
        resume is None and bool(cfg.get('resume')) and not cfg.get('load_from')
    )
    if resumes_last:
        last = last_to_resume(cfg.work_dir)
        cfg.resume = last is not None
        cfg.load_from = last or cfg.get('load_from')
    elif resume:
        cfg.resume, cfg.load_from = True, resume
    if cfg.get('load_from'):
        check_checkpoint_exists(cfg.load_from)
    return resumes_last


def _advice(work_dir: str) -> str:
    newest = newest_to_resume(work_dir)
    if newest is None:
        return f'There is no checkpoint in {work_dir} to go on from; start without --resume.'
    return f'The newest one in {work_dir} that can be read: --resume {newest}'


def _enable_amp(cfg: Config) -> None:
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind == 'AmpOptimWrapper':
        return
    if kind != 'OptimWrapper':
        raise UsageError(
            f'--amp needs optim_wrapper.type OptimWrapper or AmpOptimWrapper, not {kind}'
        )
    if get_device() == 'cpu':
        raise UsageError('--amp needs a GPU: MMEngine mixes precisions on accelerators only')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def _enable_auto_scale_lr(cfg: Config) -> None:
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config: the '
            'batch size that its learning rate is meant for'
        )
    cfg.auto_scale_lr.enable = True


def _log_to_tensorboard(cfg: Config) -> None:
    """Add the TensorBoard backend to the visualizer, where tensorboard is installed."""
    if find_spec('tensorboard') is None:
        return
    if cfg.get('visualizer') is None:
        cfg.visualizer = dict(type='mmengine.Visualizer')
    backends = cfg.visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    if not any('Tensorboard' in str(backend['type']) for backend in backends):
        backends = [*backends, dict(type='TensorboardVisBackend')]
    cfg.visualizer.vis_backends = backends


main = partial(run_tool, parse_args, train)
