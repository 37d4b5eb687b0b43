"""Where SegFormer-B1's time goes with DySample, and with bilinear interpolation, on the CPU.

Run from the repository root: python docs/benchmarks/head_steps.py [--rounds N] [--out FILE]

Both networks run in turn, for inference in channels_last with two threads, at 512 x 512 and at
256 x 256. Of every call are written: its milliseconds, those of the upsampling between projections
and fusion (six steps of DySample, three of bilinear interpolation), and of DySample's those in the
1x1 convolutions that predict offsets and in the kernels; and how many pages the system has to
provide in each of these. What the upsampling takes beside the last two is Python. (Linux only.)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from mmdysample.costs.models import NETWORKS
from mmdysample.costs.throughput import build_models, infer, random_batch
from mmdysample.engine.provenance import device_name, provenance
from mmdysample.ops.dysample import native

NETWORK = next(network for network in NETWORKS if network.name == 'SegFormer-B1')
UPSAMPLERS = ('bilinear', 'dysample')
SIZES = ((512, 512), (256, 256))
PARTS = ('upsampling', 'offsets', 'kernels')


class Parts:
    """Adds up the milliseconds and pages of the functions that it is laid around."""

    def __init__(self) -> None:
        self.milliseconds = dict.fromkeys(('call', *PARTS), 0.0)
        self.pages = dict.fromkeys(('call', *PARTS), 0)

    def around(self, part: str, function: Callable) -> Callable:
        """The same function, observed."""

        @wraps(function)
        def observed(*args: Any, **kwargs: Any) -> Any:
            before, start = provided_pages(), time.perf_counter()
            result = function(*args, **kwargs)
            self.milliseconds[part] += 1e3 * (time.perf_counter() - start)
            self.pages[part] += provided_pages() - before
            return result

        return observed


def provided_pages() -> int:
    """How many pages the system has provided to this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def observe(model: nn.Module, data: dict[str, Any]) -> Parts:
    """Predict once, and find what the parts took."""
    parts, steps = Parts(), model.decode_head.upsample_modules
    kernel = patch.object(native, 'sample', parts.around('kernels', native.sample))
    upsampling = patch.object(steps, 'forward', parts.around('upsampling', steps.forward))
    offsets = [
        patch.object(step, 'projections', parts.around('offsets', step.projections))
        for step in steps
        if hasattr(step, 'projections')
    ]
    patches = [kernel, upsampling, *offsets]
    for one in patches:
        one.start()
    parts.around('call', infer)(model, data)
    for one in patches:
        one.stop()
    return parts


def main() -> None:
    """Measure, print medians and write every call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=40)
    parser.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.json'))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    cpu, rows = torch.device('cpu'), []
    for size in SIZES:
        models = [
            model.to(memory_format=torch.channels_last)
            for model in build_models(NETWORK, UPSAMPLERS, cpu)
        ]
        data = random_batch(NETWORK, 1, size, cpu)
        data['inputs'] = data['inputs'].to(memory_format=torch.channels_last)
        for _ in range(3):
            for model in models:
                infer(model, data)
        observed = [[observe(model, data) for model in models] for _ in range(options.rounds)]
        for name, calls in zip(UPSAMPLERS, zip(*observed, strict=True), strict=True):
            for part in ('call', *PARTS):
                milliseconds = [call.milliseconds[part] for call in calls]
                pages = [call.pages[part] for call in calls]
                row = dict(size=size, upsampler=name, part=part)
                print(json.dumps(row), round(statistics.median(milliseconds), 2), 'ms,',
                      statistics.median(pages), 'pages')  # fmt: skip
                rows.append(row | dict(milliseconds=milliseconds, pages=pages))
    result = dict(
        **provenance(),
        device=device_name(cpu),
        glibc_tunables=os.environ.get('GLIBC_TUNABLES', ''),
        rows=rows,
    )
    options.out.write_text(json.dumps(result) + '\n')


if __name__ == '__main__':
    main()
