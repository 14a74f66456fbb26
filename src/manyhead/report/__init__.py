"""The report of a run: one HTML file that says what was trained, what came out, and how it got there.

`page` writes the HTML file, `artifacts` the figures and tables for papers, both from a `content.Report`. They load
matplotlib, so they are imported when a report is written.
"""
