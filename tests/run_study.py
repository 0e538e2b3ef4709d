"""Run a study in a process of its own, so that a test can kill it: python run_study.py SPEC FOLDER ENTRY."""

import sys

import welltuned
from welltuned.study import Options

if __name__ == "__main__":
    spec, folder, entry = sys.argv[1:]
    # As good as always: a checkpoint whenever the worker can make one.
    options = Options(threads=1, memory_bytes=2**31, checkpoint_seconds=0.05, entry=entry)
    welltuned.run(spec, folder, print, options)
