"""What training and testing share: arguments, the config behind them, and the runner."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdysample.engine.checkpoint import require_safe_loading
from mmdysample.engine.errors import UsageError
from mmdysample.engine.file_backend import use_whole_files
from mmdysample.engine.files import check_writable
from mmdysample.engine.hooks import guard_runner
from mmdysample.engine.processes import join_processes_on_cpu

_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130


_MISTAKES = (AssertionError, AttributeError, ImportError, LookupError, TypeError, ValueError)
"""What a config that cannot be right raises while it is built or merged."""


class CfgOptions(DictAction):
    """MMEngine's parsing of KEY=VALUE, with a message where there is no ``=``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Parse the words after the option."""
        try:
            setattr(namespace, self.dest, parse_cfg_options(values))
        except UsageError as error:
            parser.error(f'argument {option_string}: {error}')


def parse_cfg_options(words: Sequence[str]) -> dict[str, Any]:
    """Parse words of the form KEY=VALUE.

    Raises:
        UsageError: If a word has another form.
    """
    found = argparse.Namespace()
    try:
        DictAction([], 'entries')(None, found, words)
    except ValueError as error:
        raise UsageError(f'{" ".join(words)} must be KEY=VALUE ...') from error
    return found.entries


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override config entries, e.g. model.neck.upsample_cfg.groups=8; lists as '
        'key="[a,b]" or key=a,b, without blanks',
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that both tools have."""
    parser.add_argument(
        '--work-dir',
        help='where logs, results and checkpoints go (default: the config, else '
        'work_dirs/NAME-OF-CONFIG)',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed job were started',
    )
    # torch's launchers pass the rank in either spelling.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Load the config and apply the common options to it.

    Args:
        args (argparse.Namespace): Parsed arguments, with ``config`` and the common ones.

    Returns:
        Config: With ``launcher`` and ``work_dir`` set.

    Raises:
        UsageError: If the config file or an option cannot be used.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options:
        with mistakes_explained('--cfg-options cannot be merged into the config'):
            cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    return cfg


def read_config(path: str) -> Config:
    """Read a config file.

    Raises:
        UsageError: If it does not exist, cannot be read or has no model.
    """
    if not os.path.isfile(path):
        raise UsageError(f'config {path} does not exist')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program, so it may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f' ({last.filename}, line {last.lineno})' if last.name == '<module>' else ''
        raise UsageError(f'config {path} cannot be read: {_reason(error)}{where}') from error
    if cfg.get('model') is None:
        raise UsageError(f'config {path} has no model')
    return cfg


@contextmanager
def mistakes_explained(problem: str = 'the config cannot be built') -> Iterator[None]:
    """Turn what a wrong config raises while it is used into a UsageError.

    Args:
        problem (str): Beginning of the message. The end says where the error comes from.
    """
    try:
        yield
    except UsageError:
        raise
    except _MISTAKES as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f'({Path(last.filename).name}, line {last.lineno})'
        raise UsageError(f'{problem}: {_reason(error)} {where}') from error


def _reason(error: Exception) -> str:
    """Write kind and message of an error in one line."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f'{type(error).__name__}: {" ".join(str(text).split())}'


def project_root() -> Path:
    """Find configs/ and tools/: in the checkout, or in the installed package's ``.mim``."""
    package = Path(__file__).resolve().parents[1]
    return package.parent if (package.parent / 'configs').is_dir() else package / '.mim'


def check_checkpoint_exists(path: str) -> None:
    """Raise UsageError if a local checkpoint is not there; remote ones are left to the loader."""
    if '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise UsageError(f'checkpoint {path} does not exist')


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for, with safe loading and saving of checkpoints.

    Raises:
        UsageError: If the config cannot be built, or its work dir cannot be written to.
    """
    check_writable(cfg.work_dir)
    require_safe_loading()
    use_whole_files()
    join_processes_on_cpu(cfg)
    if cfg.get('default_scope') == 'mmdet' and find_spec('mmdet'):
        from mmdet.utils import setup_cache_size_limit_of_dynamo

        setup_cache_size_limit_of_dynamo()
    with mistakes_explained():
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    guard_runner(runner)
    return runner


def run_tool(
    parse: Callable[[Sequence[str] | None], argparse.Namespace],
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a tool; a usage error becomes one message and exit status 2, Ctrl-C 130.

    Args:
        parse (Callable): Parses the command line.
        command (Callable): Does the work with what was parsed.
        argv (Sequence[str], optional): The command line. Defaults to that of this process.

    Returns:
        int: The exit status.
    """
    args = parse(argv)
    try:
        command(args)
    except UsageError as error:
        sys.stderr.write(f'error: {error}\n')
        return _EXIT_USAGE
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return _EXIT_INTERRUPTED
    return 0
