"""Many machines: thinwire's methods on Flower, and existing Flower apps made thin. Needs the extra `[flower]`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from thinwire.errors import ThinwireError

try:
    import flwr as _flwr  # noqa: F401
except ImportError:
    raise ThinwireError('thinwire.flower needs Flower: pip install "thinwire[flower]"') from None

_PUBLIC = {
    "Compressed": "thinwire.flower.dropin",
    "compress": "thinwire.flower.dropin",
    "client_app": "thinwire.flower.client",
    "server_app": "thinwire.flower.server",
}

__all__ = ["Compressed", "client_app", "compress", "server_app"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'thinwire.flower' has no attribute {name!r}")
