"""Findings to one static HTML page without scripts, with its figures and tables as files beside it.

Importing this package loads neither matplotlib nor scipy; building a report does.
"""

from welltuned.report.assemble import build

__all__ = ["build"]
