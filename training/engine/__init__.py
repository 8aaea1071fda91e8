"""The training loop, optimizers, checkpoints, and several processes."""
