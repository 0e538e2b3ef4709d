"""Objectives: what a pack minimises. An objective turns hidden states and a batch into a loss for each target token."""
