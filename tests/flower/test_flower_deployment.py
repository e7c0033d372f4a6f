"""A SuperLink and its SuperNodes as processes: TLS, known nodes only, failures, and nothing left behind."""

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from thinwire.errors import ThinwireError
from thinwire.flower import commands, deployment, processes
from thinwire.flower.certificates import write_certificates, write_node_key
from thinwire.flower.commands import free_port
from thinwire.flower.deployment import Deployment
from thinwire.flower.processes import MARK, Guard, Process, end, members

PROJECT = """
[project]
name = "echo"
version = "0.1.0"
description = "One array down, one array up."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "thinwire"

[tool.flwr.app.components]
serverapp = "echo.app:server"
clientapp = "echo.app:client"

[tool.flwr.app.config]
rounds = 1
fail = false
rest = 0.0
"""
APP = """
import time

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    data = message.content["array"]["x"].data[::-1]
    told = ConfigRecord({name: context.node_config[name] for name in ("partition-id", "num-partitions", "state-dir")})
    return Message(RecordDict({"array": ArrayRecord({"x": pack(data)}), "node": told}), reply_to=message)


def pack(data):
    return Array("uint8", (len(data),), "thinwire", data)


@server.main()
def main(grid, context):
    if context.run_config["fail"]:
        raise RuntimeError("the app fails on purpose")
    for number in range(context.run_config["rounds"]):
        ask(grid, number, bytes(range(100)))
        time.sleep(context.run_config["rest"])


def ask(grid, number, data):
    nodes = list(grid.get_node_ids())
    record = RecordDict({"array": ArrayRecord({"x": pack(data)})})
    left = set(grid.push_messages([Message(record, node, "train", group_id=str(number)) for node in nodes]))
    while left:
        for reply in grid.pull_messages(left):
            left.discard(reply.metadata.reply_to_message_id)
            print("round", number, reply.error.reason[:20] if reply.has_error() else told(reply, data), flush=True)
        time.sleep(0.1)


def told(reply, data):
    assert reply.content["array"]["x"].data == data[::-1]
    return "node {partition-id} of {num-partitions}, state in {state-dir}".format(**reply.content["node"])
"""


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "echo"
    (folder / "echo").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "echo" / "__init__.py").touch()
    (folder / "echo" / "app.py").write_text(APP)
    return folder


def told(text):
    """The lines of the app above: (round, node)."""
    return [(int(number), int(node)) for number, node in re.findall(r"^round (\d+) node (\d+)", text, re.MULTILINE)]


@pytest.mark.slow
def test_a_run_over_tls_with_known_nodes_and_what_can_go_wrong(app, tmp_path):
    with Deployment(nodes=2, folder=tmp_path / "deployment") as d:
        text = d.run(app, {"rounds": 2}, timeout=240)
        assert sorted(told(text)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert f"node 1 of 2, state in {tmp_path}/deployment/state/node-1" in text
        assert "Uvicorn running on https://" in d.logs()["superlink"]
        with pytest.raises(ThinwireError, match=r"finished:failed .*on purpose\)\n[^~]*RuntimeError: the app fails"):
            d.run(app, {"fail": True}, timeout=240)
        with pytest.raises(ThinwireError, match=r"has not finished in 1 s\n"):
            d.run(app, {"rest": 1000.0}, timeout=1)
        with pytest.raises(ThinwireError, match=r"(?s)node 2 has ended.*Failed to activate SuperNode"):
            d.start_node(2, register=False)
        with pytest.raises(ThinwireError, match="node 2 is not running"):
            d.kill_node(2)
        with pytest.raises(ThinwireError, match="node 1 is running"):
            d.start_node(1)
        with pytest.raises(ThinwireError, match="without a database"):
            d.restart_superlink()
        with pytest.raises(ThinwireError, match=r"flwr run has ended\n[^~]*pyproject.toml"):
            d.run(tmp_path)
        mark = d._mark
    assert members(mark) == []


@pytest.mark.slow
def test_nodes_and_the_superlink_are_killed_and_come_back(app, tmp_path):
    with Deployment(nodes=2, database=tmp_path / "superlink.db") as d:
        run = d.submit(app, {"rounds": 3, "rest": 10.0})
        await_text(run, "round 0 node 1")
        d.kill_node(1)
        assert members(f"{d._mark}/node-1") == []
        d.start_node(1)
        played = told(run.wait(240))
        assert (2, 0) in played
        assert (2, 1) in played
        d.stop_node(0)
        d.start_node(0)
        run = d.submit(app, {"rounds": 100})
        await_text(run, "round 0 node 1")
        d.restart_superlink()
        with pytest.raises(ThinwireError, match=f"run {run.id}"):
            run.wait(60)
        assert sorted(told(d.run(app, timeout=240))) == [(0, 0), (0, 1)]
        home = d.home
    assert not home.exists()


def await_text(run, what, seconds=120):
    give_up = time.monotonic() + seconds
    while what not in run.text() and time.monotonic() < give_up:
        time.sleep(0.2)
    assert what in run.text()


@pytest.mark.slow
def test_without_tls_nodes_register_themselves(app):
    with Deployment(nodes=1, tls=False) as d:
        assert told(d.run(app, timeout=240)) == [(0, 0)]
        d.kill_node(0)
        d.start_node(0)
        assert told(d.run(app, timeout=240)) == [(0, 0)]


def test_an_error_in_the_block_and_at_the_start_leave_nothing():
    d = Deployment(nodes=0)
    with pytest.raises(KeyboardInterrupt), d:
        interrupt(d)
    assert members(d._mark) == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        d = Deployment(nodes=0, port=taken.getsockname()[1])
        with pytest.raises(ThinwireError, match=r"the SuperLink has ended\n[^~]*address already in use"), d:
            pass
    assert members(d._mark) == []


def interrupt(d):
    assert members(d._mark)
    raise KeyboardInterrupt


def test_a_missing_flower_is_named(monkeypatch):
    monkeypatch.setattr(commands.sys, "executable", "/nowhere/python")
    message = r'flower-superlink is not installed beside /nowhere/python: pip install "thinwire\[flower\]"'
    with pytest.raises(ThinwireError, match=message):
        commands.superlink(None, "127.0.0.1", 1, True, None)


def test_a_program_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(deployment, "START_SECONDS", 0.3)
    d, process = Deployment(nodes=0), sleeper(tmp_path, "silent")
    with pytest.raises(ThinwireError, match=r"it is not ready after 0\.3 s"):
        d._await(process, "ready", "it")
    process.kill()


def test_the_address_of_a_proxy_is_in_the_certificate_and_the_command():
    d = Deployment(nodes=3, host="0.0.0.0", connect=["10.1.0.1:9000", "10.1.0.2:9000"], port=1)
    d._port = 1
    assert d.address == "127.0.0.1:1"
    assert d._addresses() == ["10.1.0.1:9000", "10.1.0.2:9000"]
    assert Deployment(nodes=2, connect="a:1")._addresses() == ["a:1", "a:1"]


SLEEP = "import subprocess, sys, time; subprocess.Popen(['sleep', '1000'], start_new_session=True); time.sleep(1000)"
OWNER = f"""
import sys, time
from pathlib import Path
sys.path.append({str(Path(processes.__file__).parent)!r})
from processes import Guard, Process
with Guard(sys.argv[1]):
    Process([sys.executable, "-c", {SLEEP!r}], {{}}, sys.argv[1] + "/sleeper", Path(sys.argv[2]))
    print("up", flush=True)
    time.sleep(1000)
"""


def sleeper(folder, mark):
    """A process with a child in a session of its own."""
    process = Process([sys.executable, "-c", SLEEP], os.environ, mark, folder / "log")
    wait_until(lambda: len(members(mark)) == 2)
    return process


def wait_until(holds, seconds=30):
    give_up = time.monotonic() + seconds
    while not holds() and time.monotonic() < give_up:
        time.sleep(0.02)
    assert holds()


def test_a_process_ends_with_what_it_started_and_nothing_else_does(tmp_path):
    one, other = sleeper(tmp_path, f"{tmp_path}/a"), sleeper(tmp_path, f"{tmp_path}/ab")
    assert len(members(str(tmp_path))) == 4
    one.kill()
    wait_until(lambda: members(f"{tmp_path}/a") == [])
    assert one.exit_code == -signal.SIGKILL
    assert len(members(f"{tmp_path}/ab")) == 2
    assert not other.wait(0)
    other.interrupt()
    assert other.wait(30)
    wait_until(lambda: len(members(f"{tmp_path}/ab")) == 1)
    end(f"{tmp_path}/ab")
    wait_until(lambda: members(str(tmp_path)) == [])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_the_owner_ends_its_processes(tmp_path, number):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background of a shell
    )
    assert owner.stdout.readline() == b"up\n"
    wait_until(lambda: len(members(str(tmp_path))) == 2)
    owner.send_signal(number)
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: members(str(tmp_path)) == [])


def test_a_guard_that_closes_ends_its_processes(tmp_path):
    with Guard(str(tmp_path)):
        process = sleeper(tmp_path, f"{tmp_path}/inside")
    assert process.wait(30)
    assert members(str(tmp_path)) == []


def test_a_log_is_that_of_this_process_and_has_no_colours(tmp_path):
    log = tmp_path / "log"
    log.write_text("of before\n")
    process = Process(["printf", r"\033[92mINFO\033[0m a\n\nb\nc\n"], {MARK: "x"}, str(tmp_path), log)
    assert process.wait(30)
    assert process.text() == "INFO a\n\nb\nc\n"
    assert process.tail(2) == "b\nc"
    assert process.exit_code == 0


def test_the_server_is_trusted_by_its_own_authority_only(tmp_path):
    (tmp_path / "other").mkdir()
    write_certificates(tmp_path, ["localhost", "127.0.0.1", "10.1.0.1"])
    write_certificates(tmp_path / "other", ["localhost"])
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    for name in ("localhost", "127.0.0.1", "10.1.0.1"):
        assert greet(tmp_path, tmp_path / "ca.pem", name) == b"hello"
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        greet(tmp_path, tmp_path / "ca.pem", "10.1.0.2")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        greet(tmp_path, tmp_path / "other" / "ca.pem", "localhost")


def greet(folder, authority, name):
    """What a TLS server with the folder's certificate says to a client that trusts `authority` and wants `name`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener, server))
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname()) as raw,
                client.wrap_socket(raw, server_hostname=name) as safe,
            ):
                return safe.recv(5)
        finally:
            thread.join()


def serve(listener, context):
    raw, _ = listener.accept()
    with raw:
        try:
            with context.wrap_socket(raw, server_side=True) as safe:
                safe.sendall(b"hello")
        except (ssl.SSLError, ConnectionError):
            pass


def test_a_node_key_is_one_that_flower_takes(tmp_path):
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

    public = write_node_key(tmp_path / "node-0")
    key = load_ssh_private_key((tmp_path / "node-0").read_bytes(), None)
    assert key.curve.name == "secp384r1"
    assert load_ssh_public_key(public.read_bytes()) == key.public_key()
    assert write_node_key(tmp_path / "node-0").read_bytes() != key.public_key()


def test_free_ports_are_free():
    with socket.create_server(("127.0.0.1", free_port())):
        pass


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('not json')", "-c .*: not json"),
        ("print('╭─ Error ─╮\\n│ no such thing │\\n╰──╯')", ": no such thing"),
        ('print(\'{"success": false, "error-message": "refused"}\')', ": refused"),
        ("pass", ": no answer"),
        ("import time; time.sleep(1000)", r"has not answered in 0\.5 s"),
    ],
)
def test_what_flwr_says_instead_of_an_answer(script, message, monkeypatch):
    if "sleep" in script:
        monkeypatch.setattr(commands, "CALL_SECONDS", 0.5)
    with pytest.raises(ThinwireError, match=message):
        commands.call([sys.executable, "-c", script], os.environ)
