"""What `benchmarks/serving.py` runs: the servers, and the generator of requests."""
