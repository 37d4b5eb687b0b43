"""The main job: train Faster R-CNN with two upsamplers on the default data and compare them."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

import mmdysample
from mmdysample.engine.demo_report import write_report
from mmdysample.engine.errors import UsageError
from mmdysample.engine.launch import run_tool
from mmdysample.engine.overlay import save_overlays

CONFIGS = {
    'nearest': 'configs/demo/faster-rcnn_r18_fpn_demo.py',
    'dysample': 'configs/demo/faster-rcnn_r18_fpn-dysample_demo.py',
}
"""What is compared, by the name that the report uses."""

QUICK = (
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.dataset.indices=32',
)
"""Overrides for a run that only shows that everything works."""

_PROGRESS = re.compile(r'(Epoch\((?:train|val|test)\).*|Saving checkpoint.*|error: .*)')
_TAIL = 30


class Part:
    """One detector of the comparison: its training, its test, and what is kept of them.

    Args:
        name (str): Key of :data:`CONFIGS`.
        work_dir (Path): Where this part's files go.
        seed (int): Random seed of the training.
        overrides (Sequence[str]): Config overrides, as for ``--cfg-options``.
        threads (int): CPU threads that each of its processes may use.
    """

    def __init__(
        self, name: str, work_dir: Path, seed: int, overrides: Sequence[str], threads: int
    ) -> None:
        self.name = name
        self.work_dir = work_dir
        self.seed = seed
        self.overrides = list(overrides)
        self.threads = threads
        self.root = project_root()
        self.config = self.root / CONFIGS[name]
        self.predictions = work_dir / 'predictions.pkl'

    def run(self) -> None:
        """Train and test, leaving out what an earlier call has finished."""
        done = self.work_dir / 'done.json'
        settings = self._settings()
        if not done.exists() or json.loads(done.read_text()) != settings:
            self._train(settings)
            self._test()
            done.write_text(json.dumps(settings))
        self._say('done')

    def scalars(self) -> list[dict]:
        """Read what the training logged, over all its runs, in order."""
        files = sorted((self.work_dir / 'train').glob('*/vis_data/scalars.json'))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def metrics(self) -> dict[str, float]:
        """Read what the test measured."""
        *_, file = sorted((self.work_dir / 'test').glob('*/*.json'))
        return json.loads(file.read_text())

    def _settings(self) -> dict:
        text = Config.fromfile(self.config).pretty_text
        digest = hashlib.sha256(text.encode()).hexdigest()
        return dict(config=digest, seed=self.seed, overrides=self.overrides)

    def _train(self, settings: dict) -> None:
        begun = self.work_dir / 'begun.json'
        if begun.exists() and json.loads(begun.read_text()) != settings:
            shutil.rmtree(self.work_dir)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        begun.write_text(json.dumps(settings))
        arguments = ['--work-dir', self.work_dir / 'train', '--resume', '--seed', self.seed]
        if self.overrides:
            arguments += ['--cfg-options', *self.overrides]
        self._call('train.py', self.config, *arguments)

    def _test(self) -> None:
        checkpoint = Path((self.work_dir / 'train/last_checkpoint').read_text().strip())
        shutil.rmtree(self.work_dir / 'test', ignore_errors=True)
        arguments = ['--work-dir', self.work_dir / 'test', '--out', self.predictions]
        self._call('test.py', self.config, checkpoint, *arguments)

    def _call(self, tool: str, *arguments) -> None:
        """Run a tool in a process of its own, showing its progress; all output goes to a log."""
        command = [sys.executable, '-u', str(self.root / 'tools' / tool), *map(str, arguments)]
        log = self.work_dir / f'{Path(tool).stem}.log'
        environment = os.environ | {'OMP_NUM_THREADS': str(self.threads)}
        with (
            log.open('a') as file,
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
            ) as process,
        ):
            for line in process.stdout:
                file.write(line)
                progress = _PROGRESS.search(line)
                if progress:
                    self._say(progress[1])
        if process.returncode:
            tail = '\n'.join(log.read_text().splitlines()[-_TAIL:])
            raise UsageError(
                f'{tool} failed for {self.name} (exit status {process.returncode}); the end of '
                f'{log}:\n{tail}'
            )

    def _say(self, text: str) -> None:
        say(f'[{self.name:<8}] {text}')


def project_root() -> Path:
    """Find configs/ and tools/: in the checkout, or in the installed package's ``.mim``."""
    package = Path(mmdysample.__file__).resolve().parent
    return package.parent if (package.parent / 'configs').is_dir() else package / '.mim'


def say(text: str) -> None:
    """Write a line of progress at once."""
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of the demo."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog='tools/demo.sh', description=__doc__)
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/demo, or demo-quick')
    parser.add_argument('--quick', action='store_true', help='one short epoch, to see it work')
    parser.add_argument(
        '--jobs',
        type=int,
        choices=range(1, len(CONFIGS) + 1),
        default=1 if torch.cuda.is_available() else min(cores, len(CONFIGS)),
        help='detectors trained at the same time (default: %(default)s)',
    )
    parser.add_argument(
        '--threads', type=int, help='CPU threads for each (default: the cores, shared out)'
    )
    parser.add_argument('--seed', type=int, default=0, help='random seed (default: %(default)s)')
    parser.add_argument(
        '--pictures', type=int, default=6, help='overlay pictures to save (default: %(default)s)'
    )
    args = parser.parse_args(argv)
    args.threads = args.threads or max(1, cores // args.jobs)
    args.work_dir = args.work_dir or Path('work_dirs', 'demo-quick' if args.quick else 'demo')
    return args


def demo(args: argparse.Namespace) -> None:
    """Make the data, train and test every part, and write the comparison.

    Raises:
        UsageError: If a training or a test fails.
    """
    start = time.monotonic()
    overrides = QUICK if args.quick else ()
    parts = [
        Part(name, args.work_dir / name, args.seed, overrides, args.threads) for name in CONFIGS
    ]
    say('rendering the default data, unless it is there')
    cfg = Config.fromfile(parts[0].config)
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)

    say(f'training {len(parts)} detectors, {args.jobs} at a time, {args.threads} thread(s) each')
    with ThreadPoolExecutor(args.jobs) as pool:
        for finished in [pool.submit(part.run) for part in parts]:
            finished.result()

    report = write_report(
        args.work_dir,
        {part.name: (part.metrics(), part.scalars()) for part in parts},
        dict(seed=args.seed, quick=args.quick, jobs=args.jobs, threads=args.threads),
    )
    pictures = save_overlays(
        dataset,
        {part.name: part.predictions for part in parts},
        args.work_dir / 'overlays',
        args.pictures,
    )
    say(f'\n{report.read_text()}')
    say(f'report: {report} and {report.with_suffix(".json")}')
    say(f'pictures (truth, {", ".join(CONFIGS)}): {pictures[0].parent}')
    say(f'{time.monotonic() - start:.0f} s for this call')


if __name__ == '__main__':
    sys.exit(run_tool(lambda: demo(parse_args())))
