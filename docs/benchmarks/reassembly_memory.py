"""Peak memory of CARAFE's reassembly, forward and backward, ours beside a plain unfold.

Run from the repository root: python docs/benchmarks/reassembly_memory.py
Each candidate runs in a process of its own; what is written to reassembly_memory.json beside this
file is how far its resident memory rose above what it was with inputs and gradients in place.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from mmdysample.engine.provenance import provenance
from mmdysample.ops import reassemble

SHAPE = (1, 256, 120, 120)
KERNEL_SIZE, SCALE = 5, 2


def ours(x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """The operator of this package."""
    return reassemble(x, kernels, kernel_size=KERNEL_SIZE, scale_factor=SCALE)


def unfold(x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Windows of all pixels as one tensor, times the kernels of their sub-positions."""
    n, channels, height, width = x.shape
    windows = F.unfold(x, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
    windows = windows.view(n, channels, KERNEL_SIZE**2, height, width)
    weights = F.pixel_unshuffle(kernels, SCALE)
    weights = weights.view(n, KERNEL_SIZE**2, SCALE**2, height, width)
    out = torch.einsum('ncthw,ntshw->ncshw', windows, weights)
    return F.pixel_shuffle(out.flatten(1, 2), SCALE)


CONTESTANTS = {'ours': ours, 'unfold': unfold}


def peak_mib() -> float:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str) -> float:
    """Run one candidate; MiB above its inputs and their gradients."""
    n, _, height, width = SHAPE
    x = torch.randn(SHAPE, requires_grad=True)
    kernels = torch.rand(n, KERNEL_SIZE**2, SCALE * height, SCALE * width, requires_grad=True)
    x.grad, kernels.grad = torch.zeros_like(x), torch.zeros_like(kernels)
    before = peak_mib()
    CONTESTANTS[name](x, kernels).sum().backward()
    return peak_mib() - before


def main() -> None:
    """Measure all and write the file."""
    report = provenance()
    report['shape'] = SHAPE
    report['peak_mib'] = {}
    for name in CONTESTANTS:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report['peak_mib'][name] = float(done.stdout.splitlines()[-1])
    Path(__file__).with_suffix('.json').write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    if len(sys.argv) > 1:
        sys.stdout.write(f'{measure(sys.argv[1])}\n')
    else:
        main()
