"""The command lines of Flower 1.41 that a deployment needs, and the environment that keeps them to themselves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from thinwire.errors import ThinwireError

CLI = "cli"
CALL_SECONDS = 120.0
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "PYTHONUNBUFFERED": "1",
    "COLUMNS": "200",
    "NO_PROXY": "*",
    "no_proxy": "*",
}


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def program(name: str) -> str:
    """A command that is installed beside the Python that runs this."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise ThinwireError(f'{name} is not installed beside {sys.executable}: pip install "thinwire[flower]"')
    return str(path)


def environment(folder: Path, name: str) -> dict[str, str]:
    """The variables of one process: a FLWR_HOME of its own, because Flower unpacks apps there and not atomically."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    own = {"PATH": path, "FLWR_HOME": str(folder / "home" / name), "TMPDIR": str(folder / "tmp")}
    return {**os.environ, **QUIET, **own}


def configure(folder: Path, address: str, tls: bool) -> None:
    """Write the configuration by which `flwr` finds the SuperLink."""
    home, trust = folder / "home" / CLI, {"root-certificates": str(folder / "ca.pem")} if tls else {"insecure": True}
    home.mkdir(parents=True, exist_ok=True)
    links = {"default": "here", "here": {"address": address, **trust}}
    (home / "config.toml").write_text(tomli_w.dumps({"superlink": links}), encoding="utf-8")


def superlink(folder: Path, host: str, port: int, tls: bool, database: Path | None) -> list[str]:
    """A SuperLink that installs nothing; with TLS it lets registered nodes in and no others."""
    command = [program("flower-superlink"), "--host", host, "--port", str(port)]
    command += ["--disable-runtime-dependency-installation"]
    if database is not None:
        command += ["--database", str(database.absolute())]
    if not tls:
        return [*command, "--insecure"]
    files = {"--ssl-ca-certfile": "ca.pem", "--ssl-certfile": "server.pem", "--ssl-keyfile": "server.key"}
    command += [word for option, file in files.items() for word in (option, str(folder / file))]
    return [*command, "--enable-supernode-auth"]


def supernode(folder: Path, address: str, port: int, key: Path | None, config: Mapping[str, Any]) -> list[str]:
    """A SuperNode that serves its apps on `port`; without a key, without TLS."""
    command = [program("flower-supernode"), "--superlink", address, "--port", str(port)]
    command += ["--node-config", " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())]
    if key is None:
        return [*command, "--insecure"]
    return [*command, "--root-certificates", str(folder / "ca.pem"), "--auth-supernode-private-key", str(key)]


def call(command: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    """What a command of `flwr` answers in JSON, or ThinwireError with what it says instead."""
    try:
        done = subprocess.run(
            [*command, "--format", "json"], env=env, capture_output=True, text=True, timeout=CALL_SECONDS
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise ThinwireError(f"{' '.join(command)} has not answered in {CALL_SECONDS:g} s") from None
    except ValueError:
        raise ThinwireError(f"{' '.join(command)}: {_last_line(done.stderr or done.stdout)}") from None
    if not answer.get("success"):
        raise ThinwireError(f"{' '.join(command)}: {answer.get('error-message', answer)}")
    return answer


def _last_line(text: str) -> str:
    """The last line inside the box that flwr draws around an error."""
    return ([line.strip("│ ") for line in text.splitlines() if line.strip("│╰╯─ ")] or ["no answer"])[-1]
