"""Hooks: checkpoints that a crash can't take, finite losses, weights that fit, seeded epochs."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from mmengine.dist import get_rank, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner, set_random_seed

from mmdysample.engine.checkpoint import check_weights
from mmdysample.engine.errors import DivergedError
from mmdysample.engine.file_backend import WholeFileBackend
from mmdysample.engine.files import remove_leftovers


class LateRemovalHook(Hook):
    """Let CheckpointHook remove an old checkpoint after the new one is written and named.

    MMEngine's hook removes first: a process that is killed while it writes then leaves nothing,
    where one checkpoint is kept. The price is room for one more. That each file is written whole is
    the work of :class:`WholeFileBackend`, which also notes what is to be removed.
    """

    priority = 'LOWEST'  # after CheckpointHook

    def before_train(self, runner: Runner) -> None:
        """Clear away what a killed run left half-written, and begin to take notes."""
        if is_main_process():
            remove_leftovers(runner.work_dir)
            for hook in checkpoint_hooks(runner):
                remove_leftovers(hook.out_dir)
        WholeFileBackend.outdated = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Remove what is outdated."""
        backend, outdated = LocalBackend(), WholeFileBackend.outdated or []
        while outdated:
            path = outdated.pop()
            if backend.isdir(path):  # DeepSpeed's checkpoints are folders
                backend.rmtree(path)
            elif backend.isfile(path):
                backend.remove(path)

    after_train_epoch = after_val_epoch = after_train_iter

    def after_train(self, runner: Runner) -> None:
        """Stop to take notes."""
        self.after_train_iter(runner)
        WholeFileBackend.outdated = None


class FiniteLossHook(Hook):
    """Stop when a loss is infinite or not a number, naming its terms and the iteration.

    It looks at every iteration and costs the device nothing: MMEngine's RuntimeInfoHook has moved
    the losses to the CPU by then, and they are read from where it put them. The weights have been
    updated with that loss, but in memory only, since checkpoints are written later than this.
    Infinite *gradients* are no concern: mixed precision skips those updates by itself.
    """

    priority = 'HIGH'  # after RuntimeInfoHook, before whatever logs or saves

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the losses, which are what the model logs under names with 'loss' in them.

        Raises:
            DivergedError: If one isn't finite.
        """
        known = runner.message_hub.log_scalars
        losses = {name: value for name, value in (outputs or {}).items() if 'loss' in name}
        for name in losses:
            if f'train/{name}' in known:
                losses[name] = known[f'train/{name}'].data[0][-1]
        bad = {name: float(value) for name, value in losses.items() if not math.isfinite(value)}
        if bad:
            # The sum is only news where all its terms are finite.
            terms = {name: value for name, value in bad.items() if name != 'loss'} or bad
            raise DivergedError(
                f'not finite in iteration {runner.iter + 1}: '
                + ', '.join(f'{name} = {value}' for name, value in terms.items())
                + '. No checkpoint holds its effect. Usual reasons: a learning rate too high for '
                'the batch size, or half precision; a lower rate, a longer warm-up or '
                'optim_wrapper.clip_grad help. Go on from an earlier checkpoint with --resume.'
            )


class LoadedWeightsHook(Hook):
    """Refuse a checkpoint that has nothing for the model, which MMEngine loads with a warning.

    Args:
        checkpoint (str): Its name, for the message.
    """

    priority = 'VERY_HIGH'

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model, before it is loaded into it."""
        check_weights(runner.model, checkpoint, self.checkpoint)


class EpochSeedHook(Hook):
    """Let a resumed training give the numbers of an uninterrupted one.

    A checkpoint holds weights, optimizer and schedule, but no random states: after a resume, random
    flips, dropout and the choice of proposals go other ways. Before every epoch, this hook sets
    the states of ``random``, NumPy and PyTorch from the training's seed, the epoch and the rank.

    The data must be read in the training's own process (``num_workers=0``) or by workers that
    start anew in each epoch (``persistent_workers=False``), and the training must be based on
    epochs. What remains is the arithmetic: sums of a GPU whose order is not fixed.
    """

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the random states."""
        sequence = np.random.SeedSequence((runner.seed, runner.epoch, get_rank()))
        set_random_seed(int(sequence.generate_state(1)[0]))


def checkpoint_hooks(runner: Runner) -> list[CheckpointHook]:
    """Find the hooks of a runner that write checkpoints to local folders."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    return [hook for hook in hooks if '://' not in str(hook.out_dir)]


def guard_runner(runner: Runner) -> None:
    """Guard checkpoints and losses of a runner.

    Not by its config: that is stored in the work dir and in checkpoints, and stays one that
    MMEngine can run by itself. MMDetection's CheckInvalidLossHook is left in its place where a
    config asks for it.

    Args:
        runner (Runner): Built, not yet run.
    """
    for hook in checkpoint_hooks(runner):
        if hook.out_dir is not None:  # last_checkpoint names it, and is read in other folders too
            hook.out_dir = os.path.abspath(hook.out_dir)
    runner.register_hook(LateRemovalHook())
    if not any(type(hook).__name__ == 'CheckInvalidLossHook' for hook in runner.hooks):
        runner.register_hook(FiniteLossHook())
