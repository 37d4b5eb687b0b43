"""Where a DySample layer samples: positions, statistics and pictures."""
