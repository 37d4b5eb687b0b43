"""Pictures of where the DySample layers of a detector, segmentor or depth model sample."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image
from torch import nn

from mmdysample.engine.build import inner_dataset
from mmdysample.engine.checkpoint import check_weights, require_safe_loading, weights_of
from mmdysample.engine.errors import UnreadableImageError, UsageError
from mmdysample.engine.file_backend import use_whole_files
from mmdysample.engine.files import check_writable, write_whole
from mmdysample.engine.launch import (
    add_cfg_options,
    check_checkpoint_exists,
    load_config,
    mistakes_explained,
    run_tool,
)
from mmdysample.sampling.positions import (
    AxisMap,
    PlacedSampling,
    Sampling,
    check_points,
    find_dysample,
    find_stride,
    layer_to_input,
    watch_sampling,
)
from mmdysample.upsamplers import Upsampler

_MARK = -1.0  # third channel of the traced coordinates; no padding has this value
_STRAIGHT = 1.5  # picture pixels by which traced coordinates may miss a straight line


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the tool."""
    parser = argparse.ArgumentParser(
        description='Draw where the DySample layers of a model sample an image'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('image', help='image file')
    parser.add_argument('--checkpoint', help='weights (default: random ones)')
    parser.add_argument(
        '--layer',
        nargs='+',
        metavar='NAME',
        help='layers to draw, as --list names them (default: all that see the whole image)',
    )
    parser.add_argument('--list', action='store_true', help='list the layers and draw nothing')
    parser.add_argument(
        '--points',
        nargs='+',
        default=['auto'],
        metavar='X,Y',
        help='draw arrows at these points, in image pixels from the upper left; or "grid", or '
        '"auto", where offsets are longest (default: auto)',
    )
    parser.add_argument(
        '--arrow-scale',
        type=float,
        default=1.0,
        metavar='N',
        help='draw arrows N times as long as they are, where offsets are short (default: 1)',
    )
    parser.add_argument(
        '--out',
        default='work_dirs/sampling',
        metavar='FOLDER',
        help='where the pictures go (default: %(default)s)',
    )
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where the model runs (default: %(default)s)',
    )
    add_cfg_options(parser)
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None)
    args = parser.parse_args(argv)
    if not 0 < args.arrow_scale < np.inf:
        parser.error(f'argument --arrow-scale: must be above 0, got {args.arrow_scale:g}')
    return args


def visualize(args: argparse.Namespace) -> None:
    """Draw the layers, or list them.

    Raises:
        UsageError: If config, checkpoint, image, layer, point or device cannot be used.
    """
    points = _parse_points(args.points)
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    load, *steps = Compose(_test_pipeline(cfg)).transforms
    loaded = _load(load, args.image)
    picture = loaded['img'][..., ::-1].astype(np.uint8)
    if not isinstance(points, str):
        _point_errors(check_points, points, picture.shape[:2])
    model = _build_model(cfg, args)
    layers = find_dysample(model)
    _check_layers(args, model, layers)
    data, to_picture = _prepare(steps, loaded)
    seen, network_size = _run(model, data)

    placed = {}
    for name in args.layer or layers:
        reason = _not_placeable(name, seen.get(name), network_size)
        if reason is None:
            sampling = seen[name]
            stride = find_stride(sampling.in_size, network_size)
            where = to_picture.after(layer_to_input(stride))
            placed[name] = PlacedSampling(name, sampling, stride, where, picture.shape[:2])
        elif args.layer and not args.list:
            raise UsageError(f'layer {name} cannot be drawn over the image: {reason}')
        print(f'{name}: {reason or _describe(placed[name], layers[name])}')
    if args.list:
        return
    if not placed:
        raise UsageError(f'no DySample layer of {args.config} can be drawn over the image')
    check_writable(args.out)
    for one in placed.values():
        for path in _save(picture, one, points, args):
            print(str(path))


def _parse_points(words: list[str]) -> str | np.ndarray:
    """Turn the option's words into ``'auto'``, ``'grid'`` or an array of x and y."""
    if words in (['auto'], ['grid']):
        return words[0]
    try:
        points = np.array([[float(value) for value in word.split(',')] for word in words])
    except ValueError:
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise UsageError(
            f'--points takes auto, grid, or points such as 120,80 200,64; got {" ".join(words)}'
        )
    return points


def _load(load: Any, path: str) -> dict:
    """Load an image by the first step of a pipeline."""
    use_whole_files()  # whose errors name the file
    try:
        results = load(dict(img_path=path, img_id=0, seg_fields=[]))
    except (AssertionError, cv2.error) as error:
        raise UnreadableImageError(f'{path} cannot be read: it is damaged or no image') from error
    if results is None or 'img' not in results:
        raise UsageError(f'the test pipeline starts with {type(load).__name__}, which loads no img')
    return results


def _build_model(cfg: Config, args: argparse.Namespace) -> nn.Module:
    """Build the model with the checkpoint's weights, in evaluation."""
    try:
        device = torch.device(args.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f'--device {args.device} cannot be used here: {reason}') from error
    torch.manual_seed(0)  # without a checkpoint, the same picture each time
    with mistakes_explained():
        model = MODELS.build(cfg.model)
    if args.checkpoint:
        check_checkpoint_exists(args.checkpoint)
        require_safe_loading()
        checkpoint = load_checkpoint(model, args.checkpoint, map_location='cpu')
        check_weights(model, checkpoint, args.checkpoint)
        weights = {name.removeprefix('module.') for name in weights_of(checkpoint)}
        missing = [n for n in find_dysample(model) if f'{n}.offset.weight' not in weights]
        if missing:
            raise UsageError(
                f'checkpoint {args.checkpoint} has no weights for {", ".join(missing)}: it was '
                'made with another config'
            )
    test_cfg = getattr(model, 'test_cfg', None)
    if test_cfg is not None and 'slide' in str(test_cfg.get('mode')):
        test_cfg.mode = 'whole'  # windows would show each layer parts of the image only
    return model.to(device).eval()


def _check_layers(args: argparse.Namespace, model: nn.Module, layers: dict) -> None:
    if not layers:
        others = {type(m).__name__ for m in model.modules() if isinstance(m, Upsampler)}
        raise UsageError(
            f'the model of {args.config} has no DySample layer; it upsamples with '
            f'{", ".join(sorted(others)) or "nothing that this package knows"}'
        )
    unknown = [name for name in args.layer or () if name not in layers]
    if unknown:
        raise UsageError(
            f'the model of {args.config} has no DySample layer {", ".join(unknown)}; it has '
            f'{", ".join(layers)}'
        )


def _test_pipeline(cfg: Config) -> list:
    """Give the steps that the config tests with, less those that load the truth."""
    pipeline = inner_dataset(cfg).get('pipeline') or cfg.get('test_pipeline')
    if not pipeline:
        raise UsageError('the config has no test_dataloader.dataset.pipeline and no test_pipeline')
    return [
        step for step in pipeline if not re.search(r'Load\w*(Annotation|Proposal)', _type(step))
    ]


def _type(step: dict) -> str:
    kind = step['type']
    return kind if isinstance(kind, str) else kind.__name__


def _prepare(steps: Sequence[Any], results: dict) -> tuple[dict, AxisMap]:
    """Run the other steps on the image, and on its pixels' coordinates to see where they go.

    Returns:
        tuple[dict, AxisMap]: What the model takes, a batch of one; and the way from pixels of
        the network's input to pixels of the image.
    """
    height, width = results['img'].shape[:2]
    coordinates = np.full((height, width, 3), _MARK, np.float32)
    coordinates[..., 1], coordinates[..., 0] = np.indices((height, width))
    traced = dict(results, img=coordinates)
    try:
        for step in steps:
            results = step(results)
            # The last step turns the image into a tensor, with the values that it has.
            if 'img' in results:
                traced = _for_tracing(step)(traced)
    except ValueError as error:
        raise UsageError(f'the test pipeline refuses the image: {error}') from error
    return pseudo_collate([results]), _straight_map(traced['img'])


def _for_tracing(step: Any) -> Any:
    """Give a step that takes floats where it is, which Pillow's resizing doesn't."""
    if getattr(step, 'backend', None) != 'pillow':
        return step
    step = copy(step)
    step.backend = 'cv2'
    return step


def _straight_map(coordinates: np.ndarray) -> AxisMap:
    """Fit the way back through the pipeline from where the pixels of the image went."""
    seen = np.abs(coordinates[..., 2] - _MARK) < 1e-3
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    scale, shift = [], []
    for axis, numbers in ((0, columns), (1, rows)):
        # Beside the border, where enlarging repeats the outermost pixels.
        inner = numbers[len(numbers) // 4 : max(len(numbers) - len(numbers) // 4, 1)]
        if len(inner) < 2:
            break
        values = coordinates[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, axis]
        profile = values.mean(axis=axis, dtype=float)[inner - numbers[0]]
        slope, start = np.polyfit(inner, profile, 1)
        line = np.expand_dims(slope * numbers + start, axis)
        if np.abs(values - line).max() > _STRAIGHT * max(1, abs(slope)):
            break
        scale.append(slope)
        shift.append(start)
    if len(scale) < 2:
        raise UsageError(
            'the test pipeline does more than resize, crop, flip and pad the image, so positions '
            'in the network cannot be shown in it'
        )
    return AxisMap(tuple(scale), tuple(shift))


def _run(model: nn.Module, data: dict) -> tuple[dict[str, Sampling], tuple[int, int]]:
    """Predict, and note the first call of each layer and the size of the network's input."""
    seen: dict[str, Sampling] = {}
    handles = watch_sampling(find_dysample(model), seen.setdefault)
    try:
        with torch.no_grad():
            data = model.data_preprocessor(data, False)
            model(**data, mode='predict')
    finally:
        for handle in handles:
            handle.remove()
    return seen, tuple(data['inputs'].shape[-2:])


def _not_placeable(
    name: str, sampling: Sampling | None, network_size: tuple[int, int]
) -> str | None:
    """Say why a layer cannot be drawn over the image, or None."""
    if sampling is None:
        return 'it was not run, because nothing was detected or prediction does without it'
    size = ' x '.join(map(str, sampling.in_size))
    if 'roi_head' in name.split('.') or len(sampling.position) != 1:
        return f'it samples a map of {size} for each box, not one of the whole image'
    if find_stride(sampling.in_size, network_size) is None:
        whole = ' x '.join(map(str, network_size))
        return f"its map of {size} is not a whole fraction of the network's input of {whole}"
    return None


def _describe(placed: PlacedSampling, layer: nn.Module) -> str:
    height, width = placed.sampling.in_size
    length, beyond, outside = placed.sampling.statistics().tolist()
    return (
        f'{layer.in_channels} x {height} x {width} -> {" x ".join(map(str, placed.out_size))}, '
        f'stride {placed.stride}, {layer.groups} groups, style {layer.style}; mean offset '
        f'{length:.3g} input pixels, {beyond:.1%} beyond half a pixel, {outside:.1%} outside the '
        'map'
    )


def _save(
    picture: np.ndarray, placed: PlacedSampling, points: str | np.ndarray, args: argparse.Namespace
) -> list[Path]:
    """Draw a layer's two pictures and write them."""
    from mmdysample.sampling.plot import draw_arrows, draw_lengths

    if isinstance(points, str):
        pixels = placed.strongest_pixels() if points == 'auto' else placed.grid_pixels()
    else:
        pixels = _point_errors(placed.nearest_pixels, points)
    out, stem = Path(args.out), Path(args.image).stem
    paths = []
    for kind, drawn in (
        ('arrows', draw_arrows(picture, placed, pixels, args.arrow_scale)),
        ('lengths', draw_lengths(picture, placed)),
    ):
        paths.append(out / f'{stem}_{placed.name}_{kind}.png')
        png = io.BytesIO()
        Image.fromarray(drawn).save(png, 'png')
        write_whole(paths[-1], png.getvalue())
    return paths


def _point_errors(function: Any, *args: Any) -> Any:
    """Call a function whose ValueErrors say what is wrong with a point."""
    try:
        return function(*args)
    except ValueError as error:
        raise UsageError(f'--points: {error}') from error


main = partial(run_tool, parse_args, visualize)
