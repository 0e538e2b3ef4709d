"""Base models: load a frozen causal language model and list its sites; the bundled `abacus` family lies beside this file."""
