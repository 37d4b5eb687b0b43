"""Testing of MMDetection and MMSegmentation configs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from copy import deepcopy
from functools import partial

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from mmdysample.engine.build import inner_dataset
from mmdysample.engine.data_check import check_data_paths
from mmdysample.engine.errors import UsageError
from mmdysample.engine.faults import faults_explained
from mmdysample.engine.files import check_writable
from mmdysample.engine.hooks import LoadedWeightsHook
from mmdysample.engine.launch import (
    add_common_arguments,
    build_runner,
    check_checkpoint_exists,
    load_config,
    run_tool,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the testing tool."""
    parser = argparse.ArgumentParser(description='Test a detector or a segmentor')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint to test')
    parser.add_argument('--out', metavar='FILE.pkl', help='write all predictions to this pickle')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='save pictures of the predictions below this folder')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds for which --show shows each picture'
    )
    parser.add_argument('--tta', action='store_true', help='augment each image at test time')
    add_common_arguments(parser)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'argument --out: {args.out} must end in .pkl or .pickle')
    return args


def test(args: argparse.Namespace) -> None:
    """Test a checkpoint with the evaluator of its config.

    Raises:
        UsageError: If the config, its data, the checkpoint or an option cannot work.
    """
    cfg = load_config(args)
    check_checkpoint_exists(args.checkpoint)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        _enable_drawing(cfg, args)
    if args.tta:
        _enable_tta(cfg)
    check_data_paths(cfg, splits=('test',))
    for path in (args.out and os.path.dirname(os.path.abspath(args.out)), args.show_dir):
        if path:
            check_writable(path)
    runner = build_runner(cfg)
    runner.register_hook(LoadedWeightsHook(args.checkpoint))
    if args.out:
        _dump_predictions(runner, cfg, args.out)
    with faults_explained(runner):
        runner.test()


def _enable_drawing(cfg: Config, args: argparse.Namespace) -> None:
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UsageError(
            '--show and --show-dir need a visualization hook in default_hooks of the config, such '
            "as visualization=dict(type='DetVisualizationHook') or 'SegVisualizationHook'"
        )
    hook.draw = True
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir and cfg.get('default_scope') == 'mmdet':
        hook.test_out_dir = args.show_dir
    elif args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def _enable_tta(cfg: Config) -> None:
    dataset = inner_dataset(cfg)
    if cfg.get('default_scope') == 'mmdet':
        cfg.setdefault('tta_model', _flip_tta_model())
        cfg.setdefault('tta_pipeline', _flip_tta_pipeline(dataset.pipeline))
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise UsageError(f'--tta needs {" and ".join(missing)} in the config')
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)


def _flip_tta_model() -> ConfigDict:
    """Merge the boxes of all views by NMS, MMDetection's default."""
    nms = dict(type='nms', iou_threshold=0.5)
    return ConfigDict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))


def _flip_tta_pipeline(pipeline: list) -> list:
    """Show each image as it is and mirrored, in place of the last step, which packs the inputs."""
    meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
    pack = dict(type='PackDetInputs', meta_keys=(*meta_keys, 'flip', 'flip_direction'))
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    views = ConfigDict(type='TestTimeAug', transforms=[flips, [pack]])
    return [*deepcopy(pipeline[:-1]), views]


def _dump_predictions(runner: Runner, cfg: Config, path: str) -> None:
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults as Dump
    else:
        Dump = DumpResults
    runner.test_evaluator.metrics.append(Dump(out_file_path=path))


main = partial(run_tool, parse_args, test)
