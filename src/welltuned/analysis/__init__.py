"""What the results say: one question per file, pure functions from frozen records to frozen records."""
