"""The command line: one module per verb, each a thin wrapper over a function that returns data. Only here is printed."""
