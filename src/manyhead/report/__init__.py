"""The report of a run: one HTML file that says what was trained, what came out, and how it got there.

`build_report` returns the page of one or several runs, `write_report` puts a run's page beside its files.
"""

from manyhead.report.page import build_report, write_report

__all__ = ["build_report", "write_report"]
