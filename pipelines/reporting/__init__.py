"""The report: one self-contained HTML page from the rows of a run."""
