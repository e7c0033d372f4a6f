"""Existing Flower apps made thin: a client mod and a strategy wrapper. The apps' own code stays what it was."""

from __future__ import annotations

from thinwire.flower.dropin.mod import compress
from thinwire.flower.dropin.strategy import Compressed

__all__ = ["Compressed", "compress"]
