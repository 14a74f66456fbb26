"""Training: one step (`step`), the loop that yields step records (`loop`), stages (`stages`), and what is kept on disk.

To follow a step: `build.train` makes the parts, `stages.train_stages` drives, `loop.steps` yields, `step.take_step`
computes.
"""
