"""One row with one seed: its training and its test, in processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mmdysample.engine.batch import images_per_update
from mmdysample.engine.checkpoint import last_to_resume
from mmdysample.engine.errors import UsageError
from mmdysample.engine.files import write_json
from mmdysample.engine.launch import parse_cfg_options, project_root
from mmdysample.engine.processes import Children, Stopped
from mmdysample.engine.provenance import now
from mmdysample.reproduce.cost import config_digest
from mmdysample.reproduce.results import FAILURE, RESULT, metrics_of, run_folder
from mmdysample.reproduce.tables import Row, Table

_STAGE = re.compile(r'(Epoch\(val\).*|Iter\(val\).*|Load checkpoint.*|error: .*)')
_TAIL = 30  # lines of a log that go into a failure

KEEP_MEMORY = 'glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184'
"""Lets the C library keep freed memory, up to 16 GiB, for the next tensor.

By itself glibc gives the memory of a large tensor back to the system and asks for new pages in the
next step; that takes up to a fourth of a training step on the CPU.
"""


class RefusedError(UsageError):
    """A folder holds work of another config or seed, or another process is at work there."""


class Node(NamedTuple):
    """A machine among several that share a training: its number, and where all of them meet."""

    rank: int
    count: int
    address: str
    port: int


@dataclass(frozen=True)
class Job:
    """One row with one seed, and how it is run."""

    table: Table
    row: Row
    seed: int
    work_dir: Path  # of all results
    gpus: int = 0  # each with a process of its own; without any, one process that sees no GPU
    threads: int = 1  # of each process
    torchrun: bool = False  # starts the processes; needed for more than one
    options: tuple[str, ...] = ()  # of tools/train.py, such as --amp
    overrides: tuple[str, ...] = ()  # KEY=VALUE entries that change the config
    start: Job | None = None  # gives the weights to begin with; it is run before

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f'{self.table.name}/{self.row.name} seed {self.seed}'

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return run_folder(self.work_dir, self.table, self.row.name, self.seed).absolute()

    @property
    def processes(self) -> int:
        """How many processes share the training."""
        return max(1, self.gpus)

    def finished(self) -> bool:
        """Whether there is a result."""
        return (self.folder / RESULT).exists()

    def say(self, text: str) -> None:
        """Tell a line of progress at once."""
        print(f'[{self.table.name} {self.row.name} {self.seed}] {text}', flush=True)

    def run(
        self,
        devices: str | None = None,
        children: Children | None = None,
        node: Node | None = None,
    ) -> None:
        """Train, test and write ``result.json``, going on where an earlier call was stopped.

        Its processes get ``devices`` as ``CUDA_VISIBLE_DEVICES``; None leaves that as it is, or
        hides all from a job without GPUs, which gets :data:`KEEP_MEMORY` unless the environment
        has ``GLIBC_TUNABLES``. ``children`` keeps them. ``node`` is this machine, where
        several share the job.

        Raises:
            RefusedError: If the folder holds work of another config or seed, or if another process
                is at work there.
            Exception: Whatever else goes wrong; it is in ``failure.json`` as well. A training or
                test that fails is a UsageError.
            Stopped: If the children were ended meanwhile.
        """
        children = children or Children()
        environment = os.environ | {'OMP_NUM_THREADS': str(self.threads), 'PYTHONUNBUFFERED': '1'}
        if devices is not None or not self.gpus:
            environment['CUDA_VISIBLE_DEVICES'] = devices or ''
        if not self.gpus:
            environment.setdefault('GLIBC_TUNABLES', KEEP_MEMORY)
        call = partial(self._call, children, environment)
        if node and node.rank:
            if not self.finished():
                self._train_and_test(call, node)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone() as lock:
            try:
                cfg = load_row_config(self.row, self.overrides)
                begun = self._check_begun(cfg)
                if self.finished():
                    return
                (self.folder / FAILURE).unlink(missing_ok=True)
                self._train_and_test(partial(call, keep=(lock,)), node)
                self._record(cfg, begun)
            except (RefusedError, Stopped):
                raise
            except Exception as error:
                text = str(error) if isinstance(error, UsageError) else repr(error)
                with suppress(OSError, UsageError):  # a full disk keeps no failure from being told
                    write_json(self.folder / FAILURE, dict(error=text, time=now()))
                raise

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Hold a lock that lasts as long as this process or any that it starts for the job."""
        with (self.folder / 'lock').open('a') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RefusedError(
                    f'{self.name} is being run by another process (it holds {file.name})'
                ) from error
            yield file.fileno()

    def _check_begun(self, cfg: Config) -> dict[str, Any]:
        """Note what decides the result, and refuse work that was begun with something else."""
        begun = dict(
            config=config_digest(cfg),
            seed=self.seed,
            processes=self.processes,
            options=list(self.options),
            overrides=list(self.overrides),
        )
        start = self.start and load_row_config(self.start.row, self.start.overrides)
        begun['start'] = config_digest(start) if start else None
        path = self.folder / 'begun.json'
        if not path.exists():
            write_json(path, begun)
        earlier = json.loads(path.read_text())
        changed = [key for key in begun if begun[key] != earlier.get(key)]
        if changed:
            raise RefusedError(
                f'{self.folder} holds the work of another {", ".join(changed)}; results are never '
                'overwritten: choose another --work-dir, or move that folder away'
            )
        return begun

    def _train_and_test(self, call: Callable[..., None], node: Node | None) -> None:
        first = not (node and node.rank)  # it alone keeps the books
        suffix = '.log' if first else f'.node{node.rank}.log'
        trained = self.folder / 'trained'
        if not trained.exists():
            self.say('training')
            call(self.train_command(node), self.folder / f'train{suffix}')
            if first:
                trained.write_text(f'{now()}\n')
        if first:
            shutil.rmtree(self.folder / 'test', ignore_errors=True)
        self.say('testing')
        call(self.test_command(node), self.folder / f'test{suffix}')

    def train_command(self, node: Node | None = None) -> list[str]:
        """Write the command of the training, which goes on where there is something to resume."""
        arguments = ['--work-dir', str(self.folder / 'train'), '--resume', '--seed', str(self.seed)]
        overrides = self.overrides
        if self.start:
            overrides += (f'load_from={self.start.checkpoint()}',)
        return self._command('train.py', node, *arguments, *self.options, overrides=overrides)

    def test_command(self, node: Node | None = None) -> list[str]:
        """Write the command of the test; the training is over by then."""
        arguments = [str(self.checkpoint()), '--work-dir', str(self.folder / 'test')]
        options = self.table.test_options
        return self._command('test.py', node, *arguments, *options, overrides=self.overrides)

    def _command(
        self, tool: str, node: Node | None, *arguments: str, overrides: Sequence[str]
    ) -> list[str]:
        command = [*self._launch(tool, node), str(project_root() / self.row.config), *arguments]
        command += ['--launcher', 'pytorch'] if self.torchrun else []
        return [*command, '--cfg-options', *overrides] if overrides else command

    def _launch(self, tool: str, node: Node | None) -> list[str]:
        """Start a tool in as many processes as the job has."""
        script = str(project_root() / 'tools' / tool)
        if not self.torchrun:
            return [sys.executable, script]
        run = [sys.executable, '-m', 'torch.distributed.run']
        count = node.count if node else 1
        run.append(f'--nproc_per_node={self.processes // count}')
        if count == 1:
            return [*run, '--standalone', script]
        run += [f'--nnodes={count}', f'--node_rank={node.rank}']
        return [*run, f'--master_addr={node.address}', f'--master_port={node.port}', script]

    def _call(
        self,
        children: Children,
        environment: dict[str, str],
        command: Sequence[str],
        log: Path,
        keep: tuple[int, ...] = (),
    ) -> None:
        with log.open('a') as file, children.start(command, environment, keep) as process:
            for line in process.stdout:
                file.write(line)
                file.flush()
                stage = _STAGE.search(line)
                if stage:
                    self.say(stage[1])
        if children.ended:
            raise Stopped(self.name)
        if process.returncode:
            how = f'exit status {process.returncode}'
            if process.returncode < 0:
                how = f'killed by {signal.Signals(-process.returncode).name}'
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-_TAIL:])
            raise UsageError(f'{self.name}: {how}; the end of {log}:\n{tail}')

    def checkpoint(self) -> Path:
        """Find the last checkpoint of its training.

        Raises:
            UsageError: If there is none.
        """
        train = self.folder / 'train'
        found = last_to_resume(str(train))
        if found is None:
            raise UsageError(f'{self.name}: the training left no checkpoint in {train}')
        return Path(found)

    def _record(self, cfg: Config, begun: dict[str, Any]) -> None:
        """Write down what the test reported, what the training logged, and where it was started."""
        reports = sorted((self.folder / 'test').glob('*/*.json'))
        if not reports:
            raise UsageError(f'{self.name}: the test left no result in {self.folder / "test"}')
        test = json.loads(reports[-1].read_text(), parse_constant=lambda text: None)
        logs = sorted((self.folder / 'train').glob('*/vis_data/scalars.json'))
        scalars = [line for log in logs for line in read_scalars(log)]
        dump = Path('train', Path(self.row.config).name)  # MMEngine keeps the config's name
        if not (self.folder / dump).exists():
            raise UsageError(f'{self.name}: the training left no config in {self.folder / dump}')
        starts = json.loads((self.folder / 'train' / 'provenance.json').read_text())
        record = dict(
            table=self.table.name,
            row=self.row.name,
            scale=self.table.scale,
            seed=self.seed,
            metrics=metrics_of(self.table, {k: v for k, v in test.items() if v is not None}),
            test=test,
            scalars=scalars,
            training_seconds=round(training_seconds(scalars), 1),
            config=self.row.config,
            config_dump=str(dump),
            checkpoint=str(self.checkpoint().relative_to(self.folder)),
            settings=begun,
            batch=images_per_update(cfg, self.processes),
            overrides=list(self.overrides),
            commands=[_shown(self.train_command()), _shown(self.test_command())],
            starts=starts,
            interruptions=len(logs) - 1,
            finished=now(),
            threads=self.threads,
            **{k: v for k, v in starts[-1].items() if k not in ('command', 'time', 'environment')},
        )
        if self.finished():
            raise FileExistsError(f'{self.folder / RESULT} exists; results are never replaced')
        write_json(self.folder / RESULT, record)


def load_row_config(row: Row, overrides: Sequence[str] = ()) -> Config:
    """Load the config of a row, changed by KEY=VALUE entries, as its training sees it.

    Raises:
        UsageError: If an entry is not of that form.
    """
    cfg = Config.fromfile(project_root() / row.config)
    cfg.merge_from_dict(parse_cfg_options(overrides))
    return cfg


def read_scalars(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a ``scalars.json``, less a last one that a kill cut off; NaN becomes None.

    Raises:
        UsageError: If another line than the last is damaged.
    """
    rows, lines = [], path.read_text(errors='replace').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line, parse_constant=lambda text: None))
        except ValueError as error:
            if number < len(lines):
                raise UsageError(f'{path}, line {number} is damaged: {error}') from error
    return rows


def training_seconds(scalars: Sequence[dict[str, Any]]) -> float:
    """Add up the time of training iterations from what was logged around them.

    Work that an interruption lost is counted once.
    """
    seconds_at = {row['step']: row['time'] for row in scalars if 'loss' in row}
    steps = [0, *sorted(seconds_at)]
    return sum((step - last) * seconds_at[step] for last, step in pairwise(steps))


def _shown(command: Sequence[str]) -> str:
    """Write a command as one would type it at the root of the project."""
    root = str(project_root()) + os.sep
    return shlex.join(word.removeprefix(root) for word in ['python', *command[1:]])
