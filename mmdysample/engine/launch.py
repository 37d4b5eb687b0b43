"""What training and testing share: arguments, the config behind them, and the runner."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdysample.engine.checkpoint import require_safe_loading
from mmdysample.engine.errors import UsageError
from mmdysample.engine.files import use_whole_files
from mmdysample.engine.hooks import guard_runner
from mmdysample.engine.processes import join_processes_on_cpu

_EXIT_USAGE = 2
_EXIT_INTERRUPTED = 130


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that both tools have."""
    parser.add_argument(
        '--work-dir',
        help='where logs, results and checkpoints go (default: the config, else '
        'work_dirs/NAME-OF-CONFIG)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override config entries, e.g. model.neck.upsample_cfg.groups=8; lists as '
        'key="[a,b]" or key=a,b, without blanks',
    )
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
        UsageError: If there is no such config file.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not os.path.isfile(args.config):
        raise UsageError(f'config {args.config} does not exist')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    return cfg


def project_root() -> Path:
    """Find configs/ and tools/: in the checkout, or in the installed package's ``.mim``."""
    package = Path(__file__).resolve().parents[1]
    return package.parent if (package.parent / 'configs').is_dir() else package / '.mim'


def check_checkpoint_exists(path: str) -> None:
    """Raise UsageError if a local checkpoint is not there; remote ones are left to the loader."""
    if '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise UsageError(f'checkpoint {path} does not exist')


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for, with safe loading and saving of checkpoints."""
    require_safe_loading()
    use_whole_files()
    join_processes_on_cpu(cfg)
    if cfg.get('default_scope') == 'mmdet' and find_spec('mmdet'):
        from mmdet.utils import setup_cache_size_limit_of_dynamo

        setup_cache_size_limit_of_dynamo()
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    guard_runner(runner)
    return runner


def run_tool(command: Callable[[], None]) -> int:
    """Run a command; a usage error becomes one message and exit status 2, Ctrl-C 130.

    Args:
        command (Callable): Does the work; takes no arguments.

    Returns:
        int: The exit status.
    """
    try:
        command()
    except UsageError as error:
        sys.stderr.write(f'error: {error}\n')
        return _EXIT_USAGE
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return _EXIT_INTERRUPTED
    return 0
