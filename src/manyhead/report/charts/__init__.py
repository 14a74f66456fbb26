"""The report's charts, drawn by matplotlib: a module a kind, each a function from numbers to a `Chart`.

Importing a member loads matplotlib, so only what writes a report imports them.
"""
