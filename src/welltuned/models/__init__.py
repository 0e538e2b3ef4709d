"""Base models: load a frozen causal model, list its sites; the bundled `abacus` family lies beside this file."""
