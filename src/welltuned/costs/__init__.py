"""What a study costs before it runs: which trials train together, bytes by term, floating-point operations. Pure."""
