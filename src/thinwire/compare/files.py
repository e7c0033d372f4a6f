"""What a comparison leaves beside its runs: compare.json, compare.csv, compare.md and report.html."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from thinwire.compare.shown import as_markdown
from thinwire.compare.table import Results, Row
from thinwire.modelfile import save_bytes
from thinwire.report import save_page
from thinwire.runtime.ledger import strict_json


def write(out: Path, results: Results) -> list[Row]:
    """Write table and page, each whole or not at all; no page where no run can be read. -> the rows."""
    texts = {"json": strict_json(results.rows, indent=1) + "\n", "csv": _csv(results.rows)}
    for kind, text in (texts | {"md": as_markdown(results.rows)}).items():
        save_bytes(text.encode(), out / f"compare.{kind}")
    if results.runs:
        save_page(results.runs, out / "report.html")
    return results.rows


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
