"""Tasks, text side: one task per file, which exports `TASK` (see `_task.py`) and is known by its file name."""
