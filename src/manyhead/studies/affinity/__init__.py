"""Task affinity: which tasks to train together, asked of their gradients before training, and checked against runs.

`gradients` measures inner products of mini-batch gradients (`sketch` keeps them small), `estimates` makes unbiased
cosines with intervals of them, `grouping` the best partition; `affinity` puts them together. `gains` reads what a study
over subsets of tasks measured, and `check` compares both. `figure` draws.
"""
