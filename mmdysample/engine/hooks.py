"""What the tools put on every runner: checkpoints that a crash can't take, and finite losses."""

from __future__ import annotations

import math
import os
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmdysample.engine.errors import DivergedError
from mmdysample.engine.files import remove_leftovers, write_whole


class WholeCheckpointHook(CheckpointHook):
    """MMEngine's hook in another order: write the new, name it as the last, remove the old.

    MMEngine removes first: a process that is killed while it writes then leaves nothing, where one
    checkpoint is kept. The price is room for one more. Files, their names and arguments are the
    same. That each is written whole is the work of :class:`WholeFileBackend`.
    """

    def before_train(self, runner: Runner) -> None:
        """Clear away what a killed run left half-written."""
        super().before_train(runner)
        if is_main_process():
            remove_leftovers(runner.work_dir)
            if isinstance(self.file_backend, LocalBackend):
                remove_leftovers(self.out_dir)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and list(self.keep_ckpt_ids)[-1:] != [step]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self._path(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_whole(os.path.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
            if outdated is not None:
                _remove(self.file_backend, outdated)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend = self.file_backend
        self.file_backend = _LateRemoval(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
            outdated = self.file_backend.paths
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None)}
        best |= set(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in outdated:
            if path not in best:
                _remove(backend, path)

    def _path(self, step: int) -> str:
        return str(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))


class FiniteLossHook(Hook):
    """Stop when a loss is infinite or not a number, naming its terms and the iteration.

    It looks at every iteration and costs the device nothing: MMEngine's RuntimeInfoHook has moved
    the losses to the host by then, and they are read from where it put them. The weights have been
    updated with that loss, but in memory only, since checkpoints are written later than this.
    Infinite *gradients* are no concern: mixed precision skips those updates by itself.
    """

    priority = 'HIGH'  # after RuntimeInfoHook, before whatever logs or saves

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the losses.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch: Not used.
            outputs (dict, optional): What the model logs; names with 'loss' in them are losses.

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


def guard_runner(runner: Runner) -> None:
    """Put both hooks on a runner.

    Not by its config: that is stored in the work dir and in checkpoints, and stays one that
    MMEngine can run by itself. Subclasses of CheckpointHook are left alone, and MMDetection's
    CheckInvalidLossHook where a config asks for it.

    Args:
        runner (Runner): Built, not yet run.
    """
    for hook in runner.hooks:
        if type(hook) is CheckpointHook:
            hook.__class__ = WholeCheckpointHook  # adds no state
    if not any(type(hook).__name__ == 'CheckInvalidLossHook' for hook in runner.hooks):
        runner.register_hook(FiniteLossHook())


class _LateRemoval:
    """A file backend that only notes what it should remove."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.paths.append(path)

    rmtree = remove


def _remove(backend: Any, path: str) -> None:
    if backend.isdir(path):  # DeepSpeed's checkpoints are folders
        backend.rmtree(path)
    elif backend.isfile(path):
        backend.remove(path)
