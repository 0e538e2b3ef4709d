"""Training a pack: cursors, schedules, the micro-step loop, checkpoints."""
