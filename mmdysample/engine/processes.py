"""Beginning and end of a distributed job's processes, where MMEngine and PyTorch need help."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import traceback
from collections.abc import Callable

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device


def join_processes_on_cpu(cfg: Config) -> None:
    """Form the group of a ``--launcher pytorch`` job on a machine without accelerator.

    MMEngine would select a GPU of CUDA, which isn't there, and name it to the model's wrapper.
    Where there is one, or one process only, nothing is done.

    Args:
        cfg (Config): A full config; its ``model_wrapper_cfg`` is set unless it has one.
    """
    if cfg.get('launcher') != 'pytorch' or get_device() != 'cpu':
        return
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def run_script(main: Callable[[], int]) -> None:
    """Run a script's main function and end this process with its exit status.

    A process of a distributed job is not torn down in order: a group of gloo can deadlock then (its
    destructor joins a thread while it holds the GIL, which that thread wants), and the launcher
    would wait for it for ever. What ``main`` registers with :mod:`atexit`, such as the last upload
    of a logger, runs all the same.

    Args:
        main (Callable): Returns the exit status; takes no arguments.
    """
    status = 1

    def leave_group() -> None:
        if dist.is_initialized():
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    atexit.register(leave_group)  # what is registered later runs earlier
    try:
        status = main()
    except Exception:
        if not dist.is_initialized():
            raise
        traceback.print_exc()
    if status == 0 and dist.is_initialized():
        dist.barrier()  # nobody leaves while another still talks to it
    sys.exit(status)
