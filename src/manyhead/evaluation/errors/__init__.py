"""What a model gets wrong: views of the predictions of one task, as plain values that others draw.

`analysis.analyse` gathers all that fits a task; docs/errors.md says what each view is.
"""
