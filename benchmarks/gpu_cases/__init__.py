"""The questions of `gpu.py`, by what they are about."""
