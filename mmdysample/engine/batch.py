"""The images behind one update of the weights, and how to keep their number on fewer GPUs."""

from __future__ import annotations

from mmengine.config import Config

from mmdysample.engine.errors import UsageError

#: What a schedule counts in steps, by type. Any other schedule by steps is not scaled but refused.
_LENGTHS = {
    'LinearLR': ('begin', 'end'),
    'ConstantLR': ('begin', 'end'),
    'PolyLR': ('begin', 'end'),
    'CosineAnnealingLR': ('begin', 'end', 'T_max'),
    'MultiStepLR': ('begin', 'end', 'milestones'),
    'StepLR': ('begin', 'end', 'step_size'),
}


def images_per_update(cfg: Config, processes: int) -> int:
    """Count the images behind one update of the weights.

    Args:
        cfg (Config): Of a training.
        processes (int): How many share the training, each with batches of its own.
    """
    batches = processes * cfg.optim_wrapper.get('accumulative_counts', 1)
    return cfg.train_dataloader.batch_size * batches


def keep_batch(cfg: Config, processes: int, images: int) -> list[str]:
    """Accumulate gradients until an update has as many images as the schedule is made for.

    MMEngine counts steps, not updates, so that whatever a config gives in steps (the length of the
    training, the warm-up, milestones, intervals) grows with the number of accumulated steps. What
    it gives in epochs stays.

    Args:
        cfg (Config): Of a training.
        processes (int): How many share the training.
        images (int): Images that an update shall have.

    Returns:
        list[str]: KEY=VALUE entries that change the config; empty if it is right as it is.

    Raises:
        UsageError: If ``images`` is not a multiple of a step's, or a schedule is of a type
            whose lengths are not known.
    """
    found = images_per_update(cfg, processes)
    count, rest = divmod(images, found)
    if rest:
        raise UsageError(
            f'--keep-batch: updates of {images} images cannot be made of steps of {found}; choose '
            'another number of GPUs, set train_dataloader.batch_size, or say --no-keep-batch'
        )
    if count == 1:
        return []
    accumulated = count * cfg.optim_wrapper.get('accumulative_counts', 1)
    entries = {'optim_wrapper.accumulative_counts': accumulated}
    if not (cfg.train_cfg.get('by_epoch') or 'max_epochs' in cfg.train_cfg):
        entries['train_cfg.max_iters'] = cfg.train_cfg.max_iters * count
        if 'val_interval' in cfg.train_cfg:
            entries['train_cfg.val_interval'] = cfg.train_cfg.val_interval * count
    schedules = cfg.get('param_scheduler') or []
    for index, schedule in enumerate(schedules if isinstance(schedules, list) else [schedules]):
        if schedule.get('by_epoch', True):
            continue
        if schedule['type'] not in _LENGTHS or not isinstance(schedules, list):
            raise UsageError(
                f'--keep-batch does not know what {schedule["type"]} counts in steps; set the '
                'schedule by --cfg-options and say --no-keep-batch'
            )
        for key in _LENGTHS[schedule['type']]:
            if schedule.get(key):
                value = schedule[key]
                longer = [v * count for v in value] if isinstance(value, list) else value * count
                entries[f'param_scheduler.{index}.{key}'] = longer
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not checkpoint.get('by_epoch', True) and checkpoint.get('interval', -1) > 0:
        entries['default_hooks.checkpoint.interval'] = checkpoint['interval'] * count
    return [f'{key}={value}'.replace(' ', '') for key, value in entries.items()]
