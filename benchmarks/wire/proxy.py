"""A TCP proxy that counts: every byte that it reads, in either direction, with the time.

    with CountingProxy("127.0.0.1:8000") as proxy:      # clients connect to proxy.address
        ...
        print(proxy.up.total(), proxy.down.total())

`up` is what the connecting side sends, `down` what the target sends. The times are those of arrival at the proxy. A
sender's buffers and the queue of a slow link swallow bytes long before they cross it, so the time that a transfer
takes is seen at the link's far end only: for both directions put one proxy at each end and believe `up` of the one
near the target and `down` of the other. Seconds leave out pauses longer than a gap. Behind a slow link's queue a lost
packet holds back all that follow it, for as long as the queue is deep (0.4 s in namespaces.py), so the bytes come in
bursts: there, ask with a longer gap, or time the messages by their nodes' logs (exchanges.py).

`python -m benchmarks.wire.proxy LISTEN TARGET` does it from the command line, and prints the counts when interrupted.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import threading
from contextlib import closing, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Self

from benchmarks.wire.namespaces import enter
from benchmarks.wire.timeline import Timeline

CHUNK_BYTES = 1 << 16
BUFFER_BYTES = 1 << 18


class CountingProxy:
    """Listens at `listen` (port 0: any that is free) and forwards to `target`; runs in a thread of its own.

    namespace: the network namespace in which it lives, by name; that of the caller, if None.
    """

    def __init__(self, target: str, listen: str = "127.0.0.1:0", namespace: str | None = None) -> None:
        self.target, self._listen, self._namespace = _parse(target), _parse(listen), namespace
        self.up, self.down, self.connections = Timeline(), Timeline(), 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="counting proxy")
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def mark(self) -> None:
        """From here `up.since_mark` and `down.since_mark` count."""
        self.up.mark()
        self.down.mark()

    def _run(self) -> None:
        with closing(self._loop):
            try:
                if self._namespace is not None:
                    enter(self._namespace)
                self._loop.run_until_complete(self._serve())
            except Exception as error:
                self._failure = error
            finally:
                self._ready.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, *self._listen, limit=CHUNK_BYTES)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        self._ready.set()
        async with server:
            await self._stop.wait()
            server.close()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._handlers.discard(task)
            await _close(writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer, self.up))
                group.create_task(_pump(far_reader, writer, self.down))
        except* OSError:
            pass
        finally:
            await _close(far_writer)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeline: Timeline) -> None:
    """One direction until its end, which is handed on while the other direction stays open."""
    _bound(writer)
    while chunk := await reader.read(CHUNK_BYTES):
        timeline.add(len(chunk))
        writer.write(chunk)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


def _bound(writer: asyncio.StreamWriter) -> None:
    """Little is held back here, so that a slow link slows its sender and no one waits for an answer to unsent bytes."""
    writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _parse(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{address!r} is not an address, which is host:port")
    return host.strip("[]"), int(port)


def main(listen: str, target: str) -> None:
    """Forward until SIGINT or SIGTERM, then print the counts as one line of JSON."""
    endings = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    with CountingProxy(target, listen) as proxy:
        print(f"{proxy.address} -> {target}", flush=True)
        signal.sigwait(endings)
    counts = {"up": asdict(proxy.up.total()), "down": asdict(proxy.down.total())}
    print(json.dumps({"connections": proxy.connections, **counts}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.wire.proxy LISTEN TARGET, each host:port")
    main(*sys.argv[1:])
