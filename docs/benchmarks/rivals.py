"""How much faster CARAFE, FADE, SAPA-B and A2U are on the CPU than in an earlier revision.

Run from the repository root, with the earlier revision in another folder:

    git worktree add ../earlier 0123750
    python docs/benchmarks/rivals.py ../earlier

The two are measured in turn, each time in a process of its own, on 1 x 256 x 120 x 120 in NCHW.
What is written to rivals.json beside this file are medians over the rounds: milliseconds of a call,
how many times faster the later process of a round is, with quartiles, and the milliseconds that our
kernels take of a call. The rest is PyTorch's, and bounds what kernels can gain.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from mmdysample import build_upsampler

NAMES = ('carafe', 'fade', 'fade_lite', 'sapa_b', 'sapa_i', 'a2u')
ROUNDS, CALLS = 7, 2


def calls_of(name: str) -> dict[str, dict[str, float]]:
    """Milliseconds of a call and of our kernels in it, forward and with the backward pass."""
    torch.manual_seed(0)
    module = build_upsampler(dict(type=name), in_channels=256)
    features = [torch.randn(1, 256, 120, 120, requires_grad=True)]
    if module.guided:
        features.append(torch.randn(1, 256, 240, 240, requires_grad=True))
    wanted = [*features, *(p for p in module.parameters() if p.requires_grad)]

    def forward() -> None:
        with torch.no_grad():
            module(*features)

    def both() -> None:
        out = module(*features)
        torch.autograd.grad(out, wanted, torch.ones_like(out), allow_unused=True)

    found = {}
    for key, run in (('forward', forward), ('backward', both)):
        run()
        calls = []
        for _ in range(CALLS):
            in_kernels.clear()
            start = time.perf_counter()
            run()
            calls.append((time.perf_counter() - start, sum(in_kernels)))
        whole, kernels = map(min, zip(*calls, strict=True))
        found[key] = dict(ms=1e3 * whole, kernels_ms=1e3 * kernels)
    return found


in_kernels: list[float] = []


def time_kernels() -> None:
    """Note the seconds of every call of a native kernel; the earlier revision may have none."""
    try:
        from mmdysample.ops import native
    except ImportError:
        return
    run = native.run

    def timed(*arguments: Any, **options: Any) -> None:
        start = time.perf_counter()
        run(*arguments, **options)
        in_kernels.append(time.perf_counter() - start)

    native.run = timed


def measure(tree: Path, threads: int) -> dict[str, dict[str, dict[str, float]]]:
    """Call all upsamplers of one revision in a fresh process."""
    environment = os.environ | {'PYTHONPATH': str(tree), 'OMP_NUM_THREADS': str(threads)}
    command = [sys.executable, Path(__file__).absolute(), '--child']
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure both revisions in turn and write what came out."""
    if sys.argv[1:] == ['--child']:
        time_kernels()
        print(json.dumps({name: calls_of(name) for name in NAMES}))
        return
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    trees = {'earlier': Path(sys.argv[1]).absolute(), 'now': Path.cwd()}
    heads = {
        key: subprocess.check_output(['git', 'rev-parse', 'HEAD'], cwd=tree, text=True).strip()
        for key, tree in trees.items()
    }
    from mmdysample.engine.provenance import provenance  # not for the earlier revision

    result = dict(environment=provenance(), revisions=heads, rows=[])
    for threads in (1, 2):
        runs = {key: [] for key in trees}
        for _ in range(ROUNDS):
            for key, tree in trees.items():
                runs[key].append(measure(tree, threads))
        for name in NAMES:
            for way in ('forward', 'backward'):
                before, after = ([run[name][way] for run in found] for found in runs.values())
                faster = [a['ms'] / b['ms'] for a, b in zip(before, after, strict=True)]
                row = dict(
                    upsampler=name,
                    way=way,
                    threads=threads,
                    earlier_ms=median(call['ms'] for call in before),
                    now_ms=median(call['ms'] for call in after),
                    kernels_ms=median(call['kernels_ms'] for call in after),
                    times_faster=median(faster),
                    quartiles=quantiles(faster)[::2],
                )
                result['rows'].append(row)
                print(json.dumps(row), flush=True)
    Path(__file__).with_suffix('.json').write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
