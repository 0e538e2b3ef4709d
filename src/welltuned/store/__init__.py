"""A study's memory: one SQLite file with one writer, and content-addressed blobs beside it (see `store.py`)."""

from welltuned.store.codec import DifferingEvent
from welltuned.store.history import Counts
from welltuned.store.store import Store

__all__ = ["Counts", "DifferingEvent", "Store"]
