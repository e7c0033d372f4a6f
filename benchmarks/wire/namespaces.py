"""Network namespaces joined by links of a stated rate: a slow wire on one machine. Linux, root, iproute2.

    if reason := available():
        skip(reason)
    with wire(up_mbit=10, down_mbit=50) as net:
        subprocess.run([*net.server.prefix, "my-server", net.server.address])
        subprocess.run([*net.clients[0].prefix, "my-client", net.server.address])

The rate is that of the link layer: of 1,514 bytes of a full packet TCP's payload is 1,448. Delay is not added.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

DEVICE = "wire"
CLONE_NEWNET = 0x40000000
PAYLOAD = 1448 / 1514
QUEUE = ["burst", "32kbit", "latency", "400ms"]
T = TypeVar("T")
_numbers = count()


@dataclass(frozen=True)
class Namespace:
    """A network namespace and its address on the wire."""

    name: str
    address: str

    @property
    def prefix(self) -> list[str]:
        """Words before a command that is to run in it."""
        return ["ip", "netns", "exec", self.name]


@dataclass(frozen=True)
class Wire:
    """A server and clients, each client with a link of its own to the server. Rates in 10**6 bits a second."""

    server: Namespace
    clients: tuple[Namespace, ...]
    up_mbit: float
    down_mbit: float


@contextmanager
def wire(up_mbit: float, down_mbit: float | None = None, clients: int = 1) -> Iterator[Wire]:
    """A namespace for the server and one for each client; all are gone at the end.

    up_mbit: the rate from each client to the server; down_mbit: from the server to each client, as up_mbit if None.
    """
    down_mbit = up_mbit if down_mbit is None else down_mbit
    stem = f"wire-{os.getpid()}-{next(_numbers)}"
    with ExitStack() as stack:
        server = _namespace(stack, f"{stem}-server", "10.77.0.1")
        _ip(server, "link", "add", "bridge", "type", "bridge")
        _ip(server, "addr", "add", f"{server.address}/16", "dev", "bridge")
        _ip(server, "link", "set", "bridge", "up")
        ends = tuple(_namespace(stack, f"{stem}-{i}", f"10.77.{1 + i // 250}.{1 + i % 250}") for i in range(clients))
        for i, client in enumerate(ends):
            _link(server, client, f"to-{i}", up_mbit, down_mbit)
        yield Wire(server, ends, up_mbit, down_mbit)


def _namespace(stack: ExitStack, name: str, address: str) -> Namespace:
    space = Namespace(name, address)
    _do("ip", "netns", "add", name)
    stack.callback(_do, "ip", "netns", "delete", name)
    _ip(space, "link", "set", "lo", "up")
    return space


def _link(server: Namespace, client: Namespace, port: str, up_mbit: float, down_mbit: float) -> None:
    """A pair of interfaces, each held to the rate at which it may send."""
    _ip(server, "link", "add", port, "type", "veth", "peer", "name", DEVICE, "netns", client.name)
    _ip(server, "link", "set", port, "master", "bridge")
    _ip(client, "addr", "add", f"{client.address}/16", "dev", DEVICE)
    for space, device, mbit in ((server, port, down_mbit), (client, DEVICE, up_mbit)):
        _ip(space, "link", "set", device, "gso_max_segs", "1")
        _ip(space, "link", "set", device, "up")
        rate = ["rate", f"{round(mbit * 1e6)}bit"]
        _do("tc", "-n", space.name, "qdisc", "add", "dev", device, "root", "tbf", *rate, *QUEUE)


def _ip(space: Namespace, *words: str) -> None:
    _do("ip", "-n", space.name, *words)


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def available() -> str | None:
    """Why a wire cannot be made here; None if it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt install iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with wire(1000):
            return None
    except OSError as error:
        return str(error)


def enter(name: str) -> None:
    """Move the calling thread, and no other, into a network namespace; sockets that it opens then live there."""
    with (Path("/run/netns") / name).open() as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, f"network namespace {name}: {os.strerror(number)}")


def carried(client: Namespace) -> tuple[int, int]:
    """Bytes that the client's link has carried up and down so far, with all headers and acknowledgements."""
    table = _inside(client, lambda: Path("/proc/thread-self/net/dev").read_text())
    (counts,) = [line.split(":")[1].split() for line in table.splitlines() if line.strip().startswith(f"{DEVICE}:")]
    return int(counts[8]), int(counts[0])


def transfer_seconds(sender: Namespace, receiver: Namespace, size: int) -> float:
    """Seconds in which `size` bytes cross by plain TCP, from the receiver's first byte to its last."""
    listener = _inside(receiver, lambda: socket.create_server((receiver.address, 0)))
    address = listener.getsockname()
    thread = threading.Thread(target=lambda: _inside(sender, lambda: _send(address, size)))
    thread.start()
    with listener:
        connection, _ = listener.accept()
    with connection:
        left, start = size - len(connection.recv(1)), time.perf_counter()
        while left and (chunk := connection.recv(1 << 16)):
            left -= len(chunk)
        seconds = time.perf_counter() - start
    thread.join()
    if left:
        raise OSError(f"{left} of {size} bytes did not arrive")
    return seconds


def expected_seconds(size: int, mbit: float) -> float:
    """How long `size` bytes of payload take at a rate of the link layer."""
    return 8 * size / (mbit * 1e6 * PAYLOAD)


def _send(address: tuple[str, int], size: int) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(bytes(size))


def _inside(space: Namespace, call: Callable[[], T]) -> T:
    """What `call` returns when it is run in a thread inside the namespace."""
    found: list[T] = []

    def run() -> None:
        enter(space.name)
        found.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def main() -> None:
    """Plain TCP in both directions at three rates beside what the rates say."""
    from benchmarks.measure import save

    if reason := available():
        print(f"wire: skipped, {reason}")
        return
    rows = []
    for mbit in (1.0, 10.0, 100.0):
        size = round(mbit * 1e6 / 8 * 4)
        with wire(mbit) as net:
            for direction, ends in {"up": (net.clients[0], net.server), "down": (net.server, net.clients[0])}.items():
                seconds, said = transfer_seconds(*ends, size), expected_seconds(size, mbit)
                rows.append(
                    {"mbit/s": mbit, "direction": direction, "bytes": size, "s": seconds, "ratio": seconds / said}
                )
    save("wire", rows)


if __name__ == "__main__":
    main()
