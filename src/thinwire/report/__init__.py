"""Reads run folders as files and shows them: tables for a terminal, one self-contained page for people."""

from __future__ import annotations

from thinwire.report.page import save_page, to_stderr, write_report
from thinwire.report.runs import Run, Tell, divergence, read_run
from thinwire.report.tables import human_bytes, markdown_table, percent, run_labels, summary_rows

__all__ = [
    "Run",
    "Tell",
    "divergence",
    "human_bytes",
    "markdown_table",
    "percent",
    "read_run",
    "run_labels",
    "save_page",
    "summary_rows",
    "to_stderr",
    "write_report",
]
