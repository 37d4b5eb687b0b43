"""What the command line tools do: checks before a run, safe checkpoints, training, testing."""
