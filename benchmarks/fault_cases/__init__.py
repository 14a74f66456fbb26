"""Faults planted into two trainers alike: what `benchmarks/faults.py` runs."""
