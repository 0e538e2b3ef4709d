"""Anybody's table of results to what it supports: what was tuned for whom, and which conclusions survive.

`assemble.audit` does all of it; `sources`, `columns` and `book` read, `tuned`, `edges`, `noise`, `selection` and
`conclusions` compute, `verdict` and `findings` put it in words, `content` orders it, and
`markdown`, `webpage` and `files` write it.
"""

from welltuned.audit.assemble import Audit, audit
from welltuned.audit.records import Request

__all__ = ["Audit", "Request", "audit"]
