"""One picture per file: `compute` takes results to numbers, `draw` takes numbers to a matplotlib figure.

A file exports `FIGURE`, a `_picture.Picture`, and is thereby in every report. matplotlib is loaded by drawing only.
"""
