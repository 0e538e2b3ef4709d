"""Packed training: N trials side by side on one frozen base (design D1, D2)."""
