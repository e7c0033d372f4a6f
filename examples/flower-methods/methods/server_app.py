"""The server: plays the experiment's rounds and leaves a run directory."""

from pathlib import Path

from thinwire.flower import server_app

app = server_app(Path(__file__).parents[1] / "thinwire.toml")
