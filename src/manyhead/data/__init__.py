"""Data: reading tables, checking every row, and tokens in a memory-mapped cache."""
