"""A whole Flower deployment on one machine: a SuperLink and its SuperNodes, with TLS and known nodes only.

Everything lives in one folder and on free ports, needs no network, and is gone when the block is left, however it is
left. `flwr` must be installed beside the Python that runs this; apps may import what that Python can.

    with Deployment(nodes=3) as deployment:
        print(deployment.run("my_app", {"rounds": 5}, timeout=300))

A node is authenticated by a key that is made here and registered with the SuperLink before the node starts. A node
that is started again comes with a new key, because the SuperLink takes a killed node for alive for up to a minute and
refuses its key until then; its partition and its state directory stay.
"""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tomli_w

from thinwire.errors import ThinwireError
from thinwire.flower import commands
from thinwire.flower.certificates import write_certificates, write_node_key
from thinwire.flower.commands import free_port
from thinwire.flower.processes import MARK, Guard, Process
from thinwire.machine import cores

START_SECONDS = 120.0
LEAVE_SECONDS = 5.0
LISTENS = r"Uvicorn running on"
NODE_ID = r"SuperNode ID: (\d+)"
RUN_ID = r"Successfully started run (\d+)"


@dataclass(frozen=True)
class Run:
    """A run that was handed to the SuperLink."""

    id: str
    _process: Process
    _deployment: Deployment

    def text(self) -> str:
        """The ServerApp's log so far."""
        return self._process.text()

    def wait(self, timeout: float | None = None) -> str:
        """The log of the finished run; ThinwireError, with its last lines, if it failed or takes too long (seconds)."""
        if not self._process.wait(timeout):
            self.stop()
            raise ThinwireError(f"run {self.id} has not finished in {timeout:g} s\n{self._process.tail()}")
        status, details = self.status()
        if status != "finished:completed":
            raise ThinwireError(f"run {self.id} is {status} ({details})\n{self._process.tail()}")
        return self.text()

    def status(self) -> tuple[str, str]:
        """The SuperLink's word for it, such as running or finished:completed, and details."""
        (run,) = self._deployment.flwr("ls", "--run-id", self.id)["runs"]
        return run["status"], run["status-details"]

    def stop(self) -> None:
        """Stop the run, the deployment goes on."""
        self._deployment.flwr("stop", self.id)
        self._process.kill()


@dataclass
class Deployment:
    """A SuperLink and `nodes` SuperNodes; a context manager.

    folder: where keys, logs, apps and states go; a temporary one that is removed at the end, if None.
    tls: with certificates, and no node but the registered ones; else neither.
    database: a file in which the SuperLink keeps its state, so that it can be restarted; in memory if None.
    state_dirs: node i finds in its configuration a folder of its own, `state-dir`, that outlives it, beside
        `partition-id` (i) and `num-partitions`; node_config: further entries for all nodes.
    host, port: where the SuperLink listens; a free port if None.
    connect: the address (host:port) that all nodes, or each in turn, connect to instead: a proxy's.
    superlink_prefix, node_prefixes: words before the command of the SuperLink (and of flwr), and of each node, such as
        `ip netns exec NAME`; what stands there must hand on the environment.
    env: variables for all processes.
    """

    nodes: int
    folder: Path | None = None
    tls: bool = True
    database: Path | None = None
    state_dirs: bool = True
    node_config: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int | None = None
    connect: str | Sequence[str] | None = None
    superlink_prefix: Sequence[str] = ()
    node_prefixes: Sequence[Sequence[str]] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._mark, self._runs = uuid.uuid4().hex, 0
        self._launched: list[Process] = []
        self._node: dict[int, Process] = {}
        self._node_id: dict[int, str] = {}
        self._port = self.port or free_port()
        self._ports = {self._port}
        with ExitStack() as stack:
            self.home = self._open(stack)
            stack.enter_context(Guard(self._mark))
            stack.callback(self._leave)
            self._superlink = self._start_superlink()
            with ThreadPoolExecutor(cores()) as pool:
                list(pool.map(self._identify, range(self.nodes)))
            for i in range(self.nodes):
                self._launch_node(i)
            for i in range(self.nodes):
                self._await_node(i)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def log(self, name: str) -> Path:
        """The file into which superlink, node-0 … or run-1 … writes."""
        return self.home / "logs" / f"{name}.log"

    @property
    def address(self) -> str:
        """Where the SuperLink is reached on its own machine: host:port."""
        return f"{'127.0.0.1' if self.host in ('0.0.0.0', '') else self.host}:{self._port}"

    def run(self, app: str | Path, run_config: Mapping[str, Any] | None = None, timeout: float = 600.0) -> str:
        """Run the Flower app in a folder; its ServerApp's log, or ThinwireError with the last lines.

        run_config overrides entries of [tool.flwr.app.config] in the app's pyproject.toml, no others.
        """
        return self.submit(app, run_config).wait(timeout)

    def submit(self, app: str | Path, run_config: Mapping[str, Any] | None = None) -> Run:
        """Start a run and return as soon as the SuperLink has it."""
        self._runs += 1
        name, words = f"run-{self._runs}", ["run", str(Path(app).absolute()), "--stream"]
        if run_config:
            config = self.home / f"{name}.toml"
            config.write_text(tomli_w.dumps(dict(run_config)), encoding="utf-8")
            words += ["--run-config", str(config)]
        process = self._launch(name, commands.CLI, [*self.superlink_prefix, commands.program("flwr"), *words])
        return Run(self._await(process, RUN_ID, f"flwr {words[0]}")[1], process, self)

    def start_node(self, i: int, register: bool = True) -> None:
        """Start node i again, or one more; not registered, it is a stranger to the SuperLink and an error here."""
        if i in self._node and self._node[i].exit_code is None:
            raise ThinwireError(f"node {i} is running: kill or stop it first")
        if known := self._node_id.pop(i, None):
            self.flwr("supernode", "unregister", known)
        self._identify(i, register)
        self._launch_node(i)
        self._await_node(i)

    def kill_node(self, i: int) -> None:
        """Node i and all that it started are gone at once, as when power fails; the SuperLink is not told."""
        self._running(i).kill()

    def stop_node(self, i: int) -> None:
        """Node i takes its leave of the SuperLink and ends."""
        node = self._running(i)
        node.interrupt()
        node.wait(2 * LEAVE_SECONDS)
        node.kill()

    def restart_superlink(self) -> None:
        """Kill the SuperLink, and with it every run, and start it again from its database; the nodes come back."""
        if self.database is None:
            raise ThinwireError("a SuperLink without a database forgets all nodes: give Deployment a database")
        self._superlink.kill()
        self._superlink = self._start_superlink()

    def logs(self) -> dict[str, str]:
        """What was written by superlink, node-0 …, run-1 …; a node's ClientApps write into its log."""
        return {log.stem: log.read_text(errors="replace") for log in sorted((self.home / "logs").glob("*.log"))}

    def flwr(self, *words: str) -> dict[str, Any]:
        """Call Flower's command line on this SuperLink; its answer in JSON, or ThinwireError with what it says."""
        command = [*self.superlink_prefix, commands.program("flwr"), *words]
        return commands.call(command, {**self._environment(commands.CLI), MARK: self._mark})

    def _open(self, stack: ExitStack) -> Path:
        """The folder with certificates and a configuration of Flower's command line in it."""
        if self.folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="thinwire-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(temporary))
        else:
            home = self.folder.absolute()
        for name in ("logs", "keys", "tmp"):
            (home / name).mkdir(parents=True, exist_ok=True)
        if self.tls:
            hosts = {"localhost", "127.0.0.1", *(a.rpartition(":")[0] for a in [self.address, *self._addresses()])}
            write_certificates(home, sorted(hosts))
        commands.configure(home, self.address, self.tls)
        return home

    def _addresses(self) -> list[str]:
        """The address that each node connects to."""
        given = self.address if self.connect is None else self.connect
        return [given] * max(self.nodes, 1) if isinstance(given, str) else list(given)

    def _environment(self, name: str) -> dict[str, str]:
        return {**commands.environment(self.home, name), **self.env}

    def _launch(self, name: str, home: str, command: Sequence[str]) -> Process:
        process = Process(command, self._environment(home), f"{self._mark}/{name}", self.log(name))
        self._launched.append(process)
        return process

    def _await(self, process: Process, pattern: str, what: str) -> re.Match[str]:
        """The first match in what the process writes."""
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            ended = process.exit_code is not None
            if found := re.search(pattern, process.text()):
                return found
            if ended:
                raise ThinwireError(f"{what} has ended\n{process.tail()}")
            time.sleep(0.1)
        raise ThinwireError(f"{what} is not ready after {START_SECONDS:g} s\n{process.tail()}")

    def _start_superlink(self) -> Process:
        command = commands.superlink(self.home, self.host, self._port, self.tls, self.database)
        process = self._launch("superlink", "superlink", [*self.superlink_prefix, *command])
        self._await(process, LISTENS, "the SuperLink")
        return process

    def _identify(self, i: int, register: bool = True) -> None:
        """A new key for node i, made known to the SuperLink."""
        if not self.tls:
            return
        public = write_node_key(self.home / "keys" / f"node-{i}")
        if register:
            self._node_id[i] = str(self.flwr("supernode", "register", str(public))["node-id"])

    def _launch_node(self, i: int) -> None:
        addresses, key = self._addresses(), self.home / "keys" / f"node-{i}" if self.tls else None
        prefix = self.node_prefixes[i % len(self.node_prefixes)] if self.node_prefixes else ()
        command = commands.supernode(
            self.home, addresses[i % len(addresses)], self._new_port(), key, self._node_configuration(i)
        )
        self._node[i] = self._launch(f"node-{i}", f"node-{i}", [*prefix, *command])

    def _new_port(self) -> int:
        """A free port that was not given out before: the one that has it may not listen yet."""
        while (port := free_port()) in self._ports:
            pass
        self._ports.add(port)
        return port

    def _await_node(self, i: int) -> None:
        self._node_id[i] = self._await(self._node[i], NODE_ID, f"node {i}")[1]

    def _node_configuration(self, i: int) -> dict[str, Any]:
        config: dict[str, Any] = {"partition-id": i, "num-partitions": self.nodes, **self.node_config}
        if self.state_dirs:
            state = self.home / "state" / f"node-{i}"
            state.mkdir(parents=True, exist_ok=True)
            config["state-dir"] = str(state)
        return config

    def _running(self, i: int) -> Process:
        if i not in self._node or self._node[i].exit_code is not None:
            raise ThinwireError(f"node {i} is not running")
        return self._node[i]

    def _leave(self) -> None:
        """End all; nodes are asked to take their leave, so that a database does not keep them as alive."""
        for node in self._node.values():
            node.interrupt()
        give_up = time.monotonic() + LEAVE_SECONDS
        for node in self._node.values():
            node.wait(max(give_up - time.monotonic(), 0))
        for process in self._launched:
            process.kill()
