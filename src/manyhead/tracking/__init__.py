"""Feeding trackers from a run's metrics.jsonl, while it trains or afterwards, without harm to the run.

The run starts one process (`watch`), which never runs a tracker's code; that one starts a process for each tracker
(`worker`), which follows metrics.jsonl as it grows. The run writes its log as ever and waits for none of them.
"""
