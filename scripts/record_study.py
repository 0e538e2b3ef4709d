"""Write a finished study's table as one file: `python scripts/record_study.py runs/my-study table.jsonl.gz`."""

import argparse
from pathlib import Path

import welltuned
from welltuned.store import recorded


def main() -> None:
    """Read the study folder and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the study folder, runs/my-study")
    parser.add_argument("table", type=Path, help="the file to write, .jsonl.gz")
    arguments = parser.parse_args()
    study = welltuned.open(arguments.folder)
    recorded.write(arguments.table, study.declaration(), study.results())
    print(f"{len(study.results())} trials, {arguments.table.stat().st_size:,} bytes in {arguments.table}")


if __name__ == "__main__":
    main()
