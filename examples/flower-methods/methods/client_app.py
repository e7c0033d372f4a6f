"""The client: trains on the part of the data that its node's `partition-id` names."""

from pathlib import Path

from thinwire.flower import client_app

app = client_app(Path(__file__).parents[1] / "thinwire.toml")
