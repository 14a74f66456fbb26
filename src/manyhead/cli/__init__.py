"""The command line: one module a verb, each a thin wrapper over a function that returns data. Only here is printed."""
