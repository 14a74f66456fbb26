"""Scoring files: any number of rows and tasks, in bounded memory, each row once, also behind a kill.

`rows` reads, `scorer` predicts chunk by chunk, `formats` and `parquet` write, `job` keeps what is done.
"""
