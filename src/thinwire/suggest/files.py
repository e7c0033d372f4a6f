"""What a trial leaves beside its runs: suggested.toml, suggest.json, suggest.md and report.html."""

from __future__ import annotations

from contextlib import suppress

from thinwire.errors import DataError
from thinwire.modelfile import save_bytes
from thinwire.report import save_page
from thinwire.runtime.ledger import strict_json
from thinwire.suggest.shown import as_markdown, as_toml
from thinwire.suggest.suggestion import Suggestion
from thinwire.suggest.trial import played


def write(suggestion: Suggestion) -> Suggestion:
    """Write all four, each whole or not at all."""
    out = suggestion.out
    texts = {
        "suggested.toml": as_toml(suggestion),
        "suggest.json": strict_json(suggestion.as_dict(), indent=1) + "\n",
        "suggest.md": as_markdown(suggestion),
    }
    for name, text in texts.items():
        save_bytes(text.encode(), out / name)
    runs = []
    for planned in suggestion.trial.plan.runs:
        with suppress(DataError):  # what cannot be read is among the candidates that failed
            runs += [run] if (run := played(planned)) else []
    save_page(runs, out / "report.html")
    return suggestion
