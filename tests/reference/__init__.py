"""Slow, obvious twins of what welltuned does fast. Nothing here imports packing/ or methods/."""
