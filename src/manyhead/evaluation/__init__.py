"""Evaluation: what a model's predictions are worth. Every metric is in `manyhead.evaluation.metrics`."""
