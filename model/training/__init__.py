"""Training: one loop, two engines, checkpoints that any engine continues."""
