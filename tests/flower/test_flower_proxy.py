"""The proxy under the Flower measurements counts what passes, and the links have the rate that they say."""

import importlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
namespaces = importlib.import_module("benchmarks.wire.namespaces")
exchanges = importlib.import_module("benchmarks.wire.exchanges")
timeline = importlib.import_module("benchmarks.wire.timeline")
CountingProxy = importlib.import_module("benchmarks.wire.proxy").CountingProxy
Exchange, Exchanges = exchanges.Exchange, exchanges.Exchanges
Span, Timeline, Traffic = timeline.Span, timeline.Timeline, timeline.Traffic


class Server:
    """Accepts connections, each handled by `handle(connection)` in a thread."""

    def __init__(self, handle):
        self.handle, self.threads = handle, []

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.address = "{}:{}".format(*self.listener.getsockname())
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()
        return self

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self.serve, args=(connection,)))
            self.threads[-1].start()

    def serve(self, connection):
        with connection:
            self.handle(connection)

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in (self.thread, *self.threads):
            thread.join()


def connect(address):
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(30)
    return connection


def read_all(connection):
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def read_exactly(connection, size):
    data = bytearray()
    while len(data) < size and (chunk := connection.recv(size - len(data))):
        data += chunk
    return bytes(data)


def send_in_pieces(connection, data, rng, largest):
    start = 0
    while start < len(data):
        end = start + rng.randint(1, largest)
        connection.sendall(data[start:end])
        start = end


def reverse(connection):
    """Reads until the other side's end, then answers with it backwards, and something on top."""
    connection.sendall(read_all(connection)[::-1] + b"the end")


SIZES = [(0, 0, 1), (1, 3_000, 7), (2, 300_000, 4_096), (3, 9_000_000, 1 << 20)]


@pytest.mark.parametrize(("seed", "size", "largest"), SIZES)
def test_bytes_counted_are_bytes_sent_with_half_closed_connections(seed, size, largest):
    rng = random.Random(seed)
    data = rng.randbytes(size)
    with Server(reverse) as server, CountingProxy(server.address) as proxy:
        with connect(proxy.address) as connection:
            send_in_pieces(connection, data, rng, largest)
            connection.shutdown(socket.SHUT_WR)
            assert read_all(connection) == data[::-1] + b"the end"
        assert proxy.up.total().bytes == size
        assert proxy.down.total().bytes == size + 7
        assert proxy.connections == 1


def test_the_target_may_end_first():
    def greet(connection):
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        heard.append(read_all(connection))

    heard = []
    with Server(greet) as server, CountingProxy(server.address) as proxy:
        with connect(proxy.address) as connection:
            assert read_all(connection) == b"greeting"
            connection.sendall(b"still here")
        wait_until(lambda: heard)
        assert heard == [b"still here"]
        assert (proxy.up.total().bytes, proxy.down.total().bytes) == (10, 8)


def wait_until(holds, seconds=30):
    give_up = time.monotonic() + seconds
    while not holds() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert holds()


def test_both_directions_at_once():
    def flood(connection):
        writer = threading.Thread(target=connection.sendall, args=(bytes(5_000_000),))
        writer.start()
        heard.append(len(read_exactly(connection, 4_000_000)))
        writer.join()

    heard = []
    with Server(flood) as server, CountingProxy(server.address) as proxy, connect(proxy.address) as connection:
        writer = threading.Thread(target=connection.sendall, args=(bytes(4_000_000),))
        writer.start()
        assert len(read_exactly(connection, 5_000_000)) == 5_000_000
        writer.join()
        wait_until(lambda: heard)
        assert (proxy.up.total().bytes, proxy.down.total().bytes) == (4_000_000, 5_000_000)


def test_many_connections():
    def talk(number):
        with connect(proxy.address) as connection:
            data = random.Random(number).randbytes(1_000 * number)
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            good.append(read_all(connection) == data[::-1] + b"the end")

    good = []
    with Server(reverse) as server, CountingProxy(server.address) as proxy:
        threads = [threading.Thread(target=talk, args=(number,)) for number in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert good == [True] * 60
        assert proxy.connections == 60
        assert proxy.up.total().bytes == sum(1_000 * number for number in range(60))
        assert proxy.down.total().bytes == proxy.up.total().bytes + 60 * 7


def test_marks_divide_the_count():
    def echo(connection):
        while chunk := connection.recv(1 << 16):
            connection.sendall(chunk)

    with Server(echo) as server, CountingProxy(server.address) as proxy, connect(proxy.address) as connection:
        for size in (10, 2_000, 300):
            proxy.mark()
            connection.sendall(bytes(size))
            assert read_exactly(connection, size) == bytes(size)
            assert (proxy.up.since_mark().bytes, proxy.down.since_mark().bytes) == (size, size)
        assert proxy.up.total().bytes == 2_310


def test_a_target_that_is_down_closes_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        target = "{}:{}".format(*gone.getsockname())
    with CountingProxy(target) as proxy:
        for _ in range(3):
            with connect(proxy.address) as connection:
                assert connection.recv(1) == b""
        assert (proxy.connections, proxy.up.total().bytes) == (3, 0)


BREAK_OFF = struct.pack("ii", 1, 0)  # a close that resets the connection


def test_a_target_that_breaks_off_and_a_client_that_does():
    def hear(connection):
        read_exactly(connection, 3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, BREAK_OFF)
        if len(heard) == 1:
            heard.append(read_all(connection))
        heard.append(b"")

    heard = []
    with Server(hear) as server, CountingProxy(server.address) as proxy:
        with connect(proxy.address) as connection:
            connection.sendall(b"abc")
            assert read_all(connection) == b""
        with connect(proxy.address) as connection:
            connection.sendall(b"abc")
            wait_until(lambda: proxy.up.total().bytes == 6)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, BREAK_OFF)
        wait_until(lambda: heard == [b"", b"", b""])


def test_leaving_closes_what_is_open():
    with Server(lambda connection: connection.recv(1)) as server:
        with CountingProxy(server.address) as proxy:
            connection = connect(proxy.address)
            wait_until(lambda: proxy.connections == 1)
        with connection:
            assert connection.recv(1) == b""
    assert threading.active_count() < 10


def test_addresses_that_are_none_and_ports_that_are_taken():
    with pytest.raises(ValueError, match="'nowhere' is not an address, which is host:port"):
        CountingProxy("nowhere")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        with pytest.raises(OSError, match="address already in use"), CountingProxy("127.0.0.1:1", address):
            pass


def test_the_command_prints_the_counts_when_interrupted():
    with Server(reverse) as server:
        command = [sys.executable, "-m", "benchmarks.wire.proxy", "127.0.0.1:0", server.address]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            address = process.stdout.readline().split()[0]
            with connect(address) as connection:
                connection.sendall(b"abc")
                connection.shutdown(socket.SHUT_WR)
                assert read_all(connection) == b"cbathe end"
            process.send_signal(signal.SIGINT)
            counts = json.loads(process.stdout.readline())
        assert process.returncode == 0
    assert (counts["connections"], counts["up"]["bytes"], counts["down"]["bytes"]) == (1, 3, 10)
    wrong = subprocess.run(command[:4], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr == "usage: python -m benchmarks.wire.proxy LISTEN TARGET, each host:port\n"


def test_pauses_longer_than_the_gap_are_left_out():
    line = Timeline()
    for now, count in ((10.0, 5), (10.001, 6), (10.03, 7), (10.2, 8), (10.21, 9)):
        line.add(count, now)
    assert line.spans == [Span(10.0, 10.001, 11), Span(10.03, 10.03, 7), Span(10.2, 10.2, 8), Span(10.21, 10.21, 9)]
    assert line.total() == Traffic(35, pytest.approx(0.04), 10.0, 10.21)
    assert line.total(gap=1.0).seconds == pytest.approx(0.21)
    assert line.between(10.03, 10.2) == Traffic(7, 0.0, 10.03, 10.03)
    assert line.between(10.1).bytes == 17
    line.mark()
    assert line.since_mark() == Traffic(0, 0.0)
    line.add(1, 10.211)
    assert line.since_mark() == Traffic(1, 0.0, 10.211, 10.211)
    assert line.total().bytes == 36


DOWN = """\x1b[92mINFO \x1b[0m:      [RUN 71, ROUND 3]
INFO :      Receiving: train message (ID: 1a04)
INFO :      Received successfully
"""
UP = """INFO :      [RUN 71, ROUND 3]
INFO :      Sending: train message (ID: e10d)
"""


def test_exchanges_are_timed_by_the_logs_of_the_nodes(tmp_path):
    logs = {name: tmp_path / f"{name}.log" for name in ("node-0", "node-1")}
    logs["node-0"].write_text(DOWN)
    with Exchanges(logs) as following:
        write(logs["node-0"], DOWN + UP[:40])
        wait_until(lambda: len(following.found) == 1)
        write(logs["node-1"], UP)
        write(logs["node-0"], UP[40:])
        time.sleep(0.3)
        write(logs["node-1"], "ERROR :     Failed to send message e10d: gone\nINFO :      Received successfully\n")
        wait_until(lambda: len(following.found) == 2)
        write(logs["node-0"], "INFO :      Sent successfully\n")
    down, failed, up = following.found
    assert down == Exchange("node-0", "71", "3", "train", False, True, down.start, down.end)
    assert failed == Exchange("node-1", "71", "3", "train", True, False, failed.start, failed.end)
    assert up == Exchange("node-0", "71", "3", "train", True, True, up.start, up.end)
    assert 0.25 < failed.seconds <= up.seconds


def write(log, text):
    with log.open("a") as file:
        file.write(text)


def test_a_message_of_no_round_has_an_empty_one():
    reader = exchanges.Reader("node-0")
    for now, text in enumerate(["[RUN 5, ROUND a]", "[RUN 5]", "Sending: query message (ID: 9)", "Sent successfully"]):
        reader.line(text, float(now))
    assert reader.found == [Exchange("node-0", "5", "", "query", True, True, 2.0, 3.0)]
    assert reader.found[0].seconds == 1.0


@pytest.fixture
def wire():
    """Makes wires, where that can be done."""
    if reason := namespaces.available():
        pytest.skip(f"no wire here: {reason}")
    return namespaces.wire


def mine():
    """The network namespaces of this process."""
    return [name for name in os.listdir("/run/netns") if name.startswith(f"wire-{os.getpid()}-")]


def test_a_link_is_no_faster_than_its_rate_and_not_much_slower(wire):
    size = 500_000
    with wire(up_mbit=10, down_mbit=20) as net:
        up = namespaces.transfer_seconds(net.clients[0], net.server, size)
        up_bytes, down_bytes = namespaces.carried(net.clients[0])
        down = namespaces.transfer_seconds(net.server, net.clients[0], size)
    assert size / namespaces.PAYLOAD < up_bytes < 1.1 * size / namespaces.PAYLOAD
    assert 0 < down_bytes < 0.1 * size
    assert 0.85 < up / namespaces.expected_seconds(size, 10) < 2
    assert 0.85 < down / namespaces.expected_seconds(size, 20) < 2


def test_each_client_has_a_link_of_its_own_and_nothing_is_left(wire):
    with wire(up_mbit=10, clients=2) as net:
        assert sorted(mine()) == sorted(space.name for space in (net.server, *net.clients))
        listing = subprocess.run([*net.clients[1].prefix, "ip", "addr"], capture_output=True, text=True, check=True)
        assert net.clients[1].address in listing.stdout
        seconds = []

        def send(client):
            seconds.append(namespaces.transfer_seconds(client, net.server, 250_000))

        threads = [threading.Thread(target=send, args=(client,)) for client in net.clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert max(seconds) < 1.7 * namespaces.expected_seconds(250_000, 10)
    assert mine() == []
    with pytest.raises(RuntimeError), wire(up_mbit=10):
        raise RuntimeError
    assert mine() == []


def test_the_far_proxy_sees_how_long_a_transfer_takes(wire):
    with wire(up_mbit=10) as net:
        size, said = 300_000, namespaces.expected_seconds(300_000, 10)
        sink = threading.Thread(target=receive_inside, args=(net.server, size))
        with CountingProxy("127.0.0.1:7002", f"{net.server.address}:7001", net.server.name) as proxy:
            sink.start()
            time.sleep(0.1)
            namespaces._inside(net.clients[0], lambda: namespaces._send((net.server.address, 7001), size))
            sink.join()
            assert proxy.up.total().bytes == size
            assert 0.85 < proxy.up.total().seconds / said < 2


def receive_inside(space, size):
    namespaces.enter(space.name)
    with socket.create_server(("127.0.0.1", 7002)) as listener:
        connection, _ = listener.accept()
    with connection:
        assert len(read_exactly(connection, size)) == size


def test_a_reason_is_given_where_there_is_no_wire(monkeypatch):
    monkeypatch.setattr(namespaces.shutil, "which", lambda program: None)
    assert namespaces.available() == "ip is not installed (Debian: apt install iproute2)"
    monkeypatch.undo()
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 1000)
    if namespaces.shutil.which("tc"):
        assert namespaces.available() == "network namespaces need root"
    monkeypatch.setattr(namespaces.sys, "platform", "darwin")
    assert namespaces.available() == "network namespaces are Linux's"


def test_an_unknown_namespace_is_named():
    with pytest.raises(FileNotFoundError, match="no-such-namespace"):
        namespaces.enter("no-such-namespace")
