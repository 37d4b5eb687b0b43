"""Random states of every epoch that depend on the seed and the epoch alone."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner


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
        seed = int(sequence.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
