"""What upsamplers cost and what was published about them; PyTorch alone suffices to import."""
