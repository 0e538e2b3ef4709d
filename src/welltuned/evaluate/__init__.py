"""Judging adapters: held-out loss, packed greedy generation, graded answers, and the machine's own check."""
