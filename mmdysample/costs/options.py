"""The command-line options that the tools of this folder share."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdysample.upsamplers import upsampler_names


def add_upsamplers(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """Add ``--upsamplers`` and ``--import``; :func:`check_upsamplers` completes them."""
    parser.add_argument(
        '--upsamplers',
        nargs='+',
        default=list(default),
        metavar='TYPE',
        help=f'registered types, of {", ".join(upsampler_names())} or your own '
        f'(default: {" ".join(default)})',
    )
    parser.add_argument(
        '--import',
        nargs='+',
        default=[],
        dest='imports',
        metavar='MODULE',
        help='modules to import first, which register upsamplers of your own; they are looked '
        'for in the working directory too',
    )


def check_upsamplers(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Import the modules of ``--import``, then refuse types that are not registered."""
    if options.imports:
        sys.path.insert(0, str(Path.cwd()))
    for name in options.imports:
        try:
            importlib.import_module(name)
        except ImportError as error:
            parser.error(f'--import {name}: {error}')
    unknown = [name for name in options.upsamplers if name not in upsampler_names()]
    if unknown:
        parser.error(
            f'--upsamplers: {", ".join(unknown)} is not registered; registered are '
            f'{", ".join(upsampler_names())}. --import MODULE registers your own'
        )
