"""Many machines: thinwire's methods on Flower, and existing Flower apps made thin. Needs the extra `[flower]`."""

from __future__ import annotations

from thinwire.errors import ThinwireError

try:
    import flwr as _flwr  # noqa: F401
except ImportError:
    raise ThinwireError('thinwire.flower needs Flower: pip install "thinwire[flower]"') from None

from thinwire.flower.client import client_app
from thinwire.flower.server import server_app

__all__ = ["client_app", "server_app"]
