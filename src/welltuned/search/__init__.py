"""Searches: one per file, which exports `SEARCH` (see `_search.py`) and is known by its file name. All are pure."""
