"""One row with one seed: its training and its test, in processes of their own."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mmdysample.costs.stopwatch import device_name
from mmdysample.engine.errors import UsageError
from mmdysample.engine.launch import project_root
from mmdysample.engine.provenance import provenance
from mmdysample.reproduce.results import RESULT, Result, metrics_of, read_result, write_once
from mmdysample.reproduce.tables import Row, Table

LAUNCHERS = ('none', 'pytorch', 'slurm')
FAILURE = 'failure.json'
_STAGE = re.compile(r'(Epoch\(val\).*|Iter\(val\).*|Load checkpoint.*|error: .*)')
_TAIL = 30
_GPUS_PER_NODE = 8


class Stopped(Exception):
    """The run was asked to stop; what is there goes on with the next call."""


@dataclass(frozen=True)
class Settings:
    """How every row is run.

    Args:
        work_dir (Path): Folder of all results.
        processes (int): Processes, each with a GPU of its own, of one training. Defaults to 1.
        launcher (str): One of :data:`LAUNCHERS`; how several processes are started: 'pytorch' on
            this machine, 'slurm' over the nodes of the allocation that this runs in. Defaults to
            'none', a single process.
        threads (int): CPU threads of each process. Defaults to 1.
        options (tuple[str, ...]): Further options of ``tools/train.py``, such as ``--amp``.
            Defaults to none.
        overrides (tuple[str, ...]): KEY=VALUE entries that change the config of every row.
            Defaults to none.
    """

    work_dir: Path
    processes: int = 1
    launcher: str = 'none'
    threads: int = 1
    options: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


@dataclass
class Job:
    """One row with one seed.

    Args:
        table (Table): Its table.
        row (Row): The row.
        seed (int): Random seed of the training.
        folder (Path): Where its files go.
        settings (Settings): How it is run.
        say (Callable): Takes a line of progress.
        stop (threading.Event): Set when the run shall end.
    """

    table: Table
    row: Row
    seed: int
    folder: Path
    settings: Settings
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f'{self.table.name}/{self.row.name} seed {self.seed}'

    def finished(self) -> bool:
        """Whether there is a result."""
        return (self.folder / RESULT).exists()

    def run(self, devices: str | None = None) -> Result:
        """Train and test, going on where an earlier call was stopped.

        Args:
            devices (str, optional): ``CUDA_VISIBLE_DEVICES`` of its processes. Defaults to None,
                as it is.

        Returns:
            Result: The new result, or the one that an earlier call left.

        Raises:
            UsageError: If the training or the test fails, if the folder holds the work of other
                settings, or if another process is at work there.
            Stopped: If the run was asked to stop meanwhile.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone() as lock:
            settings = self._fingerprint()
            self._check_settings(settings)
            if self.finished():
                return read_result(self.folder)
            environment = os.environ | {'OMP_NUM_THREADS': str(self.settings.threads)}
            if devices is not None:
                environment['CUDA_VISIBLE_DEVICES'] = devices
            (self.folder / FAILURE).unlink(missing_ok=True)
            with (self.folder / 'attempts.txt').open('a') as file:
                file.write(_now() + '\n')
            try:
                commands = self._work(environment, lock)
            except UsageError as error:
                _replace(self.folder / FAILURE, dict(error=str(error), time=_now()))
                raise
            return self._record(settings, commands)

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """Hold a lock that lasts as long as this process or any that it starts for the job."""
        with (self.folder / 'lock').open('a') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f'{self.name} is being run by another process (it holds {file.name})'
                ) from error
            yield file.fileno()

    def _fingerprint(self) -> dict[str, Any]:
        cfg = load_row_config(self.row, self.settings.overrides)
        digest = hashlib.sha256(cfg.pretty_text.encode()).hexdigest()
        return dict(
            config=digest,
            seed=self.seed,
            processes=self.settings.processes,
            options=list(self.settings.options),
            overrides=list(self.settings.overrides),
        )

    def _check_settings(self, settings: dict[str, Any]) -> None:
        begun = self.folder / 'begun.json'
        if not begun.exists():
            _replace(begun, settings)
            return
        earlier = json.loads(begun.read_text())
        changed = [key for key in settings if settings[key] != earlier.get(key)]
        if changed:
            raise UsageError(
                f'{self.folder} holds the work of another {", ".join(changed)}; results are never '
                'overwritten: choose another --work-dir, or move that folder away'
            )

    def _work(self, environment: dict[str, str], lock: int) -> list[str]:
        commands = []
        train = self._command('train.py', self.row.config)
        train += ['--work-dir', str(self.folder / 'train'), '--resume', '--seed', str(self.seed)]
        train += [*self.settings.options, *self._overrides()]
        commands.append(_shown(train))
        done = self.folder / 'trained'
        if not done.exists():
            self.say('training')
            self._call(train, self.folder / 'train.log', environment, lock)
            done.write_text(_now() + '\n')
        shutil.rmtree(self.folder / 'test', ignore_errors=True)
        test = self._command('test.py', self.row.config, str(self._checkpoint()))
        test += ['--work-dir', str(self.folder / 'test')]
        test += [*self.table.test_options, *self._overrides()]
        commands.append(_shown(test))
        self.say('testing')
        self._call(test, self.folder / 'test.log', environment, lock)
        return commands

    def _overrides(self) -> list[str]:
        return ['--cfg-options', *self.settings.overrides] if self.settings.overrides else []

    def _command(self, tool: str, *arguments: str) -> list[str]:
        """Start a tool the way that the launcher asks for."""
        root, count = project_root(), self.settings.processes
        tail = [str(root / 'tools' / tool), str(root / arguments[0]), *arguments[1:]]
        if self.settings.launcher == 'pytorch':
            run = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
            return [*run, f'--nproc_per_node={count}', *tail, '--launcher', 'pytorch']
        if self.settings.launcher == 'slurm':
            per_node = min(count, _GPUS_PER_NODE)
            run = ['srun', f'--ntasks={count}', f'--ntasks-per-node={per_node}']
            return [*run, '--kill-on-bad-exit=1', sys.executable, *tail, '--launcher', 'slurm']
        return [sys.executable, *tail]

    def _call(
        self, command: Sequence[str], log: Path, environment: dict[str, str], lock: int
    ) -> None:
        with (
            log.open('a') as file,
            subprocess.Popen(
                command,
                env=environment | {'PYTHONUNBUFFERED': '1'},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
                pass_fds=[lock],
                preexec_fn=_die_with_parent,
            ) as process,
        ):
            watcher = threading.Thread(target=self._terminate_on_stop, args=(process,), daemon=True)
            watcher.start()
            for line in process.stdout:
                file.write(line)
                file.flush()
                stage = _STAGE.search(line)
                if stage:
                    self.say(stage[1])
        if self.stop.is_set():
            raise Stopped(self.name)
        if process.returncode:
            how = f'exit status {process.returncode}'
            if process.returncode < 0:
                how = f'killed by {signal.Signals(-process.returncode).name}'
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-_TAIL:])
            raise UsageError(f'{self.name}: {how}; the end of {log}:\n{tail}')

    def _terminate_on_stop(self, process: subprocess.Popen) -> None:
        while process.poll() is None:
            if self.stop.wait(0.5):
                process.terminate()
                return

    def _checkpoint(self) -> Path:
        note = self.folder / 'train' / 'last_checkpoint'
        if not note.exists():
            raise UsageError(f'{self.name}: the training left no checkpoint ({note} is missing)')
        return self.folder / 'train' / Path(note.read_text().strip()).name

    def _record(self, settings: dict[str, Any], commands: list[str]) -> Result:
        reports = sorted((self.folder / 'test').glob('*/*.json'))
        if not reports:
            raise UsageError(f'{self.name}: the test left no result in {self.folder / "test"}')
        test = json.loads(reports[-1].read_text())
        scalars = [
            row
            for file in sorted((self.folder / 'train').glob('*/vis_data/scalars.json'))
            for row in read_scalars(file)
        ]
        attempts = (self.folder / 'attempts.txt').read_text().splitlines()
        (dump,) = (self.folder / 'train').glob('*.py')
        record = dict(
            table=self.table.name,
            row=self.row.name,
            scale=self.table.scale,
            seed=self.seed,
            metrics=metrics_of(self.table, test),
            test=test,
            scalars=scalars,
            training_seconds=round(training_seconds(scalars), 1),
            config=self.row.config,
            config_dump=str(dump.relative_to(self.folder)),
            checkpoint=str(self._checkpoint().relative_to(self.folder)),
            settings=settings,
            overrides=list(self.settings.overrides),
            commands=commands,
            interruptions=len(attempts) - 1,
            finished=_now(),
            device=device_name(_device()),
            threads=self.settings.threads,
            **{k: v for k, v in provenance().items() if k != 'command'},
        )
        write_once(self.folder / RESULT, record)
        return read_result(self.folder)


def load_row_config(row: Row, overrides: Sequence[str] = ()) -> Config:
    """Load the config of a row as its training sees it.

    Args:
        row (Row): A row that has a config.
        overrides (Sequence[str]): KEY=VALUE entries, as for ``--cfg-options``. Defaults to none.

    Raises:
        UsageError: If an entry is not of that form.
    """
    entries = {}
    for text in overrides:
        key, sign, value = text.partition('=')
        if not sign:
            raise UsageError(f'--cfg-options takes KEY=VALUE, got {text!r}')
        entries[key] = DictAction._parse_iterable(value)
    cfg = Config.fromfile(project_root() / row.config)
    cfg.merge_from_dict(entries)
    return cfg


def read_scalars(path: Path) -> list[dict[str, Any]]:
    """Read what a training logged, less a last line that a kill cut off.

    Args:
        path (Path): A ``scalars.json``, which holds an object on each line.

    Raises:
        UsageError: If another line than the last is damaged.
    """
    rows = []
    lines = path.read_text(errors='replace').splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise UsageError(f'{path}, line {number} is damaged: {error}') from error
    return rows


def training_seconds(scalars: Sequence[dict[str, Any]]) -> float:
    """Add up the time spent in training iterations, also over interrupted and resumed runs.

    Args:
        scalars (Sequence[dict]): Logged scalars in order; those of training have ``step`` and
            ``time``, the seconds per iteration around it.

    Returns:
        float: Seconds. Work that an interruption lost is counted once.
    """
    seconds_at = {row['step']: row['time'] for row in scalars if 'loss' in row}
    steps = [0, *sorted(seconds_at)]
    return sum((step - last) * seconds_at[step] for last, step in pairwise(steps))


def _device():
    import torch

    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def _shown(command: Sequence[str]) -> str:
    """Write a command as one would type it at the root of the project."""
    root = str(project_root()) + os.sep
    words = ['python', *command[1:]] if command[0] == sys.executable else list(command)
    return shlex.join(word.removeprefix(root) for word in words)


def _replace(path: Path, record: dict[str, Any]) -> None:
    draft = path.with_suffix('.part')
    draft.write_text(json.dumps(record, indent=1) + '\n')
    draft.replace(path)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec='seconds')


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Leave no training behind that nobody watches, should the parent be killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
