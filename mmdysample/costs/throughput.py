"""Images per second of whole models, with one upsampler and with another."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmdysample.costs.candidates import FORMATS
from mmdysample.costs.models import Network, available_networks, build_network
from mmdysample.costs.options import add_upsamplers, check_upsamplers
from mmdysample.costs.stopwatch import (
    measure,
    median_and_quartiles,
    peak_memory,
    progress,
    speeds,
)
from mmdysample.engine.provenance import device_name, origin, provenance, save

MODELS = ('Faster-R-CNN-R50', 'SegFormer-B1')
UPSAMPLERS = ('dysample', 'dysample_s_plus')
CLASSES = 19
"""Random labels are below this; every model has at least as many classes."""


def build_models(
    network: Network, upsamplers: Sequence[str], device: torch.device
) -> list[nn.Module]:
    """Build a model with each upsampler; all other weights are the same, random ones."""
    models = [build_network(network, name) for name in upsamplers]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict(), strict=False)
    return [model.to(device) for model in models]


def random_batch(
    network: Network, batch: int, size: tuple[int, int], device: torch.device
) -> dict[str, Any]:
    """Draw normalised images, each with random labels: arguments of the model."""
    inputs = torch.randn(batch, 3, *size, device=device)
    return dict(inputs=inputs, data_samples=[_sample(network, size, device) for _ in range(batch)])


def share_proposals(models: Sequence[nn.Module], images: Tensor) -> None:
    """Let the second stages of detectors work on the same boxes: those that the first one proposes.

    RoIAlign takes a third of the time or more, and how long depends on where the boxes lie. Random
    weights propose other boxes for other features, so models would be timed at different work.

    Args:
        models (Sequence[nn.Module]): Models of one network; nothing is done to a segmentor.
        images (Tensor): The images that they will be timed on, ``(N, 3, H, W)``.
    """
    if not hasattr(models[0], 'rpn_head'):
        return
    with torch.no_grad():
        held = models[0].rpn_head(models[0].extract_feat(images))

    def replace(_module: nn.Module, _features: tuple, found: tuple) -> tuple:
        # The values of the first model with the gradients of this one, so a step costs the same.
        return tuple(
            [own + (first - own).detach() for own, first in zip(maps, others, strict=True)]
            for maps, others in zip(found, held, strict=True)
        )

    for model in models:
        model.rpn_head.register_forward_hook(replace)


def infer(model: nn.Module, data: dict[str, Any]) -> None:
    """Predict, from images to final boxes or segmentations at full size."""
    with torch.inference_mode():
        model(**data, mode='predict')


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: dict[str, Any]) -> None:
    """Do one training step: losses, gradients, new weights."""
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def time_network(
    network: Network,
    upsamplers: Sequence[str],
    batch: int,
    size: tuple[int, int],
    rounds: int,
    device: torch.device,
    training: bool = False,
    layout: str = 'nchw',
) -> list[dict[str, Any]]:
    """Time one network with every upsampler in turn.

    Args:
        network (Network): The network.
        upsamplers (Sequence[str]): Type names; the first is what the others are compared with.
        batch (int): Images at a time.
        size (tuple[int, int]): Their height and width.
        rounds (int): Timed runs of each.
        device (torch.device): Where they run.
        training (bool): Time training steps instead of predictions. Defaults to False.
        layout (str): Memory format of models and images, ``'nchw'`` or ``'channels_last'``.
            Defaults to ``'nchw'``.

    Returns:
        list[dict]: One row per upsampler, for the result file.
    """
    models = [
        model.to(memory_format=FORMATS[layout])
        for model in build_models(network, upsamplers, device)
    ]
    data = random_batch(network, batch, size, device)
    data['inputs'] = data['inputs'].to(memory_format=FORMATS[layout])
    share_proposals(models, data['inputs'])
    runs: list[Callable[[], None]] = [partial(infer, model, data) for model in models]
    if training:
        runs = [
            partial(train, model.train(), torch.optim.SGD(model.parameters(), lr=1e-6), data)
            for model in models
        ]
    memory = [peak_memory(run, device) for run in runs]
    times, _ = measure(runs, rounds, device, graphs=False)
    return [
        dict(
            model=network.name,
            upsampler=name,
            mode='training' if training else 'inference',
            memory_format=layout,
            batch=batch,
            size=list(size),
            images_per_s=batch / statistics.median(seconds),
            **speed,
            **median_and_quartiles(seconds),
            peak_mib=peak,
        )
        for name, seconds, speed, peak in zip(upsamplers, times, speeds(times), memory, strict=True)
    ]


def to_markdown(result: dict[str, Any]) -> str:
    """Render one table, ratios first."""
    lines = [
        f'{origin(result)}, {result["threads"]} threads. Median of {result["rounds"]} interleaved '
        'runs; random images and weights, the same for every upsampler, and the same boxes for the '
        'second stage of a detector. Speed is relative to the stock model in the same round.',
        '',
        '| model | image | batch | upsampler | speed (quartiles) | images/s | ms (quartiles) '
        '| peak, MiB |',
        '| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |',
    ]
    for row in result['rows']:
        height, width = row['size']
        low, high = row['quartiles_ms']
        slow, fast = row['quartiles_to_baseline']
        peak = '' if row['peak_mib'] is None else f'{row["peak_mib"]:.0f}'
        lines.append(
            f'| {row["model"]}, {row["mode"]}, {row["memory_format"]} | {height} x {width} '
            f'| {row["batch"]} | {row["upsampler"]} | {row["to_baseline"]:.3f} '
            f'({slow:.3f} to {fast:.3f}) '
            f'| {row["images_per_s"]:.3g} '
            f'| {row["median_ms"]:.4g} ({low:.4g} to {high:.4g}) | {peak} |'
        )
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure; print the table; write it and the JSON behind it where asked to."""
    networks = {n.name: n for n in available_networks() if n.name in MODELS}
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--models', nargs='+', choices=list(networks), default=list(networks))
    add_upsamplers(parser, default=UPSAMPLERS)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if cuda else 'cpu')
    parser.add_argument('--batch', type=int, help='images at a time (default: 8, on the CPU 1)')
    parser.add_argument(
        '--shrink', type=int, help='divide height and width of images (default: 1, on the CPU 2)'
    )
    parser.add_argument('--rounds', type=int, help='runs of each (default: 30, on the CPU 7)')
    parser.add_argument('--training', action='store_true', help='time training steps as well')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='JSON to write, and its table as .md beside it')
    options = parser.parse_args(arguments)
    check_upsamplers(parser, options)
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    batch, shrink, rounds = (
        given or default
        for given, default in zip(
            (options.batch, options.shrink, options.rounds),
            (8, 1, 30) if device.type == 'cuda' else (1, 2, 7),
            strict=True,
        )
    )
    ways = (False, True) if options.training else (False,)
    rows = []
    cases = list(product((networks[name] for name in options.models), ways, FORMATS))
    for network, training, layout in progress(cases):
        names = list(dict.fromkeys((network.baseline, *options.upsamplers)))
        size = (network.size[0] // shrink, network.size[1] // shrink)
        rows += time_network(network, names, batch, size, rounds, device, training, layout)
    result = dict(
        **provenance(),
        device=device_name(device),
        threads=torch.get_num_threads(),
        seed=options.seed,
        rounds=rounds,
        rows=rows,
    )
    print(to_markdown(result))
    if options.out:
        save(result, to_markdown(result), options.out)


def _sample(network: Network, size: tuple[int, int], device: torch.device) -> Any:
    """Draw labels of one image, as the model's framework wants them."""
    from mmengine.structures import PixelData

    shapes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    metainfo = dict.fromkeys(shapes, size) | dict(scale_factor=(1.0, 1.0))
    if network.package == 'mmseg':
        from mmseg.structures import SegDataSample

        labels = torch.randint(CLASSES, (1, *size), device=device)
        return SegDataSample(metainfo=metainfo, gt_sem_seg=PixelData(data=labels))
    from mmdet.testing import demo_mm_inputs

    made = demo_mm_inputs(1, [(3, *size)], num_items=[8], num_classes=CLASSES)
    (sample,) = made['data_samples']
    sample.set_metainfo(metainfo)
    return sample.to(device)
