"""Methods: one LoRA method per file, which exports `METHOD` (see `_method.py`) and is known by its file name.

Method files load torch inside their functions only, so that `plan` can read versions and parameter counts without it.
"""
