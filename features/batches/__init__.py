"""Training batches, each a pure function of (seed, epoch, step)."""
