"""Suggest: short runs of known good combinations, halved until one is left to recommend, with its measured curve."""

from __future__ import annotations

from thinwire.suggest.budget import Budget, read_budget, read_link
from thinwire.suggest.halving import Score, Standing
from thinwire.suggest.playing import play, suggest
from thinwire.suggest.shown import as_toml, curve, last_words, table
from thinwire.suggest.suggestion import Suggestion
from thinwire.suggest.trial import Trial, prepare

__all__ = [
    "Budget",
    "Score",
    "Standing",
    "Suggestion",
    "Trial",
    "as_toml",
    "curve",
    "last_words",
    "play",
    "prepare",
    "read_budget",
    "read_link",
    "suggest",
    "table",
]
