"""The command line of exports: ``tools/export.py CONFIG CHECKPOINT --to onnx``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdysample.engine.build import build_model, dataset_meta, inner_dataset
from mmdysample.engine.checkpoint import load_weights, require_safe_loading, weights_of
from mmdysample.engine.files import write_json
from mmdysample.engine.launch import (
    add_cfg_options,
    check_checkpoint_exists,
    mistakes_explained,
    read_config,
    run_tool,
)
from mmdysample.export.errors import ExportError
from mmdysample.export.evaluate import evaluate
from mmdysample.export.export import export_model
from mmdysample.export.forms import SAMPLINGS
from mmdysample.export.load import load_exported
from mmdysample.export.runtimes import DESCRIPTION, RUNTIMES


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the exporting tool."""
    parser = argparse.ArgumentParser(
        description='Export a trained detector or segmentor, run it in its runtime and compare it '
        'with PyTorch; what differs is not kept'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of that config')
    parser.add_argument('--to', choices=list(RUNTIMES), default='onnx', help='default: onnx')
    parser.add_argument(
        '--out', metavar='DIR', help='folder to write (default: work_dirs/NAME-OF-CONFIG/RUNTIME)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels of the image (default: the test pipeline's size, up to a multiple of 32)",
    )
    parser.add_argument('--dynamic', action='store_true', help='leave batch, height and width open')
    parser.add_argument(
        '--sampling',
        choices=list(SAMPLINGS),
        default='gridsample',
        help="DySample's form; gather is for runtimes without GridSample (default: gridsample)",
    )
    parser.add_argument('--opset', type=int, default=18, help='version of ONNX (default: 18)')
    parser.add_argument('--half', action='store_true', help='store in float16')
    parser.add_argument(
        '--int8', metavar='CALIBRATION_DIR', help='quantise, with ranges from these images'
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        help="largest difference as a fraction of an output's largest value (default: 1e-4, and "
        'more with --half and --int8)',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--evaluate',
        action='store_true',
        help="run the config's evaluator on PyTorch's model and on the exported one, and note both "
        'in model.json',
    )
    return parser.parse_args(argv)


def export(args: argparse.Namespace) -> None:
    """Export as the command line says and print what the check saw.

    Raises:
        UsageError: If something is missing, cannot be exported or differs.
    """
    cfg = read_config(args.config)
    check_checkpoint_exists(args.checkpoint)
    with mistakes_explained('--cfg-options cannot be merged into the config'):
        cfg.merge_from_dict(args.cfg_options or {})
    size = tuple(args.size) if args.size else test_size(cfg)
    out = args.out or Path('work_dirs', Path(args.config).stem, args.to)
    model = load_model(cfg, args.checkpoint)
    done = export_model(
        model,
        out,
        to=args.to,
        size=size,
        dynamic=args.dynamic,
        sampling=args.sampling,
        opset=args.opset,
        half=args.half,
        calibration=args.int8,
        tolerance=args.tolerance,
    )
    sys.stdout.write(f'{done.table()}\n\nwritten to {done.folder}\n')
    if args.evaluate:
        metrics = dict(pytorch=evaluate(model, cfg), runtime=evaluate(load_exported(out), cfg))
        description = Path(out, DESCRIPTION)
        about = json.loads(description.read_text()) | dict(evaluation=metrics)
        write_json(description, about, finite=False)
        for name, value in metrics['pytorch'].items():
            sys.stdout.write(f'{name}: {value:.4f}, {metrics["runtime"][name]:.4f} exported\n')


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """Build the model of a config with the weights of a checkpoint, all of them.

    Args:
        cfg (Config): A detector's or a segmentor's.
        checkpoint (str): Path or address of the checkpoint.

    Returns:
        nn.Module: In evaluation mode, with ``cfg`` and ``dataset_meta``.

    Raises:
        RefusedCheckpointError: If the checkpoint is damaged or unsafe, or does not fit the config.
    """
    require_safe_loading()
    model = revert_sync_batchnorm(build_model(cfg))
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    load_weights(model, weights_of(loaded), f'checkpoint {checkpoint}')
    model.cfg = cfg
    model.dataset_meta = dataset_meta(cfg, loaded.get('meta', {}).get('dataset_meta') or {})
    return model


def test_size(cfg: Config) -> tuple[int, int]:
    """Find height and width of test images, up to multiples of 32.

    Raises:
        ExportError: If the test pipeline does not say.
    """
    for step in inner_dataset(cfg).get('pipeline', []):
        scale = step.get('scale') if step.get('type') == 'Resize' else None
        if isinstance(scale, Sequence) and len(scale) == 2:
            width, height = scale
            return -(-height // 32) * 32, -(-width // 32) * 32
    raise ExportError('the test pipeline of the config names no size: give --size HEIGHT WIDTH')


main = partial(run_tool, parse_args, export)
