"""How long a round's transfer takes on a real link of 10 Mbit/s, by method: SuperLink and SuperNodes on a slow wire.

A SuperLink in one network namespace, two SuperNodes in namespaces of their own, each behind a link that is held to the
rate at both ends; TLS and node authentication; a counting proxy at each end of each link. Seconds are those in which
bytes arrive at the link's far end: training, coding, polling and the start of processes are left out. Rounds 2 and 3
are shown, in which every node holds the model (round 1's broadcast is a seed). Data: 16 real images a client, because
weights are sent here, not judged.

    THINWIRE_DATA=... python experiments/deployment/slow_link.py FOLDER [--mbit 10] [--models lenet vgg16] [--only NAME]

Needs root, iproute2 and the extra [flower]. What is in FOLDER is not run again. Writes slow_link.csv and slow_link.md
beside this script.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.parquet as parquet
from benchmarks.wire.namespaces import Wire, available, wire
from benchmarks.wire.proxy import CountingProxy

from thinwire import api
from thinwire.flower.check import write_app
from thinwire.flower.commands import free_port
from thinwire.flower.deployment import Deployment
from thinwire.modelfile import save_bytes
from thinwire.runtime.experiment import parse

HERE = Path(__file__).parent
CLIENTS, ROUNDS, IMAGES = 2, 3, 16
MODELS = {"lenet": "mnist", "vgg16": "cifar10"}
THIN = {"id": "fedzip", "variant": "pinned", "keep": 0.01}
ENTRIES: dict[str, dict[str, Any]] = {
    "dense": {"method": "fedavg"},
    "fedpara": {"method": "fedpara", "parameterisation.gamma": 0.1},
    "ssfl": {"method": "ssfl", "method.density": 0.1},
    "ssfl + m22": {"method": "ssfl", "method.density": 0.1, "uplink": {"id": "m22", "keep": 0.2, "bits": 1},
                   "downlink": {"id": "m22", "keep": 0.2, "bits": 1}},
    "fedpm": {"method": "fedpm"},
    "fedzip up": {"method": "fedavg", "uplink": THIN},
    "fedzip both ways": {"method": "fedavg", "uplink": THIN, "downlink": THIN},
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One client's link and the proxies at its two ends, by where the bytes of a direction end."""

    at_client: CountingProxy
    at_server: CountingProxy


@dataclass
class Clock:
    """When each round of a run was over: the times at which its ledger grew."""

    ledger: Path
    times: list[float] = field(default_factory=lambda: [time.time()])

    def watch(self, done: threading.Event) -> None:
        """Note the time of every new line until told to end."""
        while not done.wait(0.02):
            lines = self.ledger.read_bytes().count(b"\n") if self.ledger.exists() else 0
            if lines >= len(self.times):
                self.times.append(time.time())


def small_data(name: str, folder: Path) -> Path:
    """A folder of the data set's first images, as many as the clients train on."""
    batch = next(
        parquet.ParquetFile(Path(os.environ["THINWIRE_DATA"]) / name / "test.parquet").iter_batches(CLIENTS * IMAGES)
    )
    target = folder / f"data-{name}"
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        with parquet.ParquetWriter(target / f"{split}.parquet", batch.schema) as writer:
            writer.write_batch(batch)
    return target


@contextmanager
def slow(mbit: float, folder: Path) -> Iterator[tuple[Deployment, list[Line]]]:
    """A deployment whose nodes reach the SuperLink over links of this rate, and the lines."""
    with ExitStack() as stack:
        net: Wire = stack.enter_context(wire(mbit, clients=CLIENTS))
        port, lines = free_port(), []
        for client in net.clients:
            near = CountingProxy(f"{net.server.address}:{port}", f"{net.server.address}:0", net.server.name)
            stack.enter_context(near)
            far = CountingProxy(near.address, f"{client.address}:0", client.name)
            stack.enter_context(far)
            lines.append(Line(far, near))
        deployment = Deployment(
            CLIENTS, folder, host=net.server.address, port=port, connect=[line.at_client.address for line in lines],
            superlink_prefix=net.server.prefix, node_prefixes=[client.prefix for client in net.clients],
        )  # fmt: skip
        yield stack.enter_context(deployment), lines


def measure(options: Mapping[str, Any], deployment: Deployment, lines: list[Line], folder: Path) -> dict[str, Any]:
    """Run one entry. -> a client's payload, wire bytes and seconds a round and direction, mean of rounds 2 and 3."""
    experiment = parse(api.settings(clients=CLIENTS, rounds=ROUNDS, batch_size=8, **options))
    out, done = folder / "run", threading.Event()
    clock = Clock(out / "rounds.jsonl")
    watcher = threading.Thread(target=clock.watch, args=(done,))
    watcher.start()
    try:
        deployment.run(write_app(experiment, folder / "app"), {"out": str(out.absolute())}, timeout=1800)
    finally:
        time.sleep(0.1)
        done.set()
        watcher.join()
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {}
    for way, end in (("up", "at_server"), ("down", "at_client")):
        seen = [
            getattr(getattr(line, end), way).between(start, stop)
            for line in lines
            for start, stop in zip(clock.times[1:], clock.times[2:], strict=False)
        ]
        found[f"{way}_payload_bytes"] = round(mean(entry[f"{way}_bytes"] for entry in rounds[1:]) / CLIENTS)
        found[f"{way}_wire_bytes"] = round(mean(traffic.bytes for traffic in seen))
        found[f"{way}_seconds"] = round(mean(traffic.seconds for traffic in seen), 3)
    return found


def main() -> None:
    """Run what is not there, write the tables."""
    parser = argparse.ArgumentParser(description="Transfer seconds a round on a slow link, by method.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mbit", type=float, default=10.0)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--only", nargs="+", choices=list(ENTRIES), default=list(ENTRIES))
    asked = parser.parse_args()
    if reason := available():
        raise SystemExit(f"a slow link cannot be made here: {reason}")
    missing = {
        (model, name): asked.folder / f"{model}-{name.replace(' ', '-')}"
        for model in asked.models
        for name in asked.only
        if not (asked.folder / f"{model}-{name.replace(' ', '-')}" / "found.json").exists()
    }
    if missing:
        with slow(asked.mbit, asked.folder / "flower") as (deployment, lines):
            for (model, name), folder in missing.items():
                data = small_data(MODELS[model], asked.folder)
                found = measure({"data": data, "model": model} | ENTRIES[name], deployment, lines, folder)
                print(model, name, found, flush=True)
                save_bytes(json.dumps({"model": model, "entry": name} | found).encode(), folder / "found.json")
    write(asked.folder)


def write(folder: Path) -> None:
    """The tables of all that is in a folder."""
    order = [f"{model}-{name.replace(' ', '-')}" for model in MODELS for name in ENTRIES]
    rows = [json.loads((folder / name / "found.json").read_text()) for name in order if (folder / name).exists()]
    with open(HERE / "slow_link.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    dense = {row["model"]: row["up_seconds"] + row["down_seconds"] for row in rows if row["entry"] == "dense"}
    titles = ("model", "method", "payload up", "payload down", "wire up", "wire down", "s up", "s down", "× faster")
    table = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for row in rows:
        seconds = row["up_seconds"] + row["down_seconds"]
        counts = [f"{row[f'{way}_{kind}_bytes']:,}" for kind in ("payload", "wire") for way in ("up", "down")]
        times = [f"{row['up_seconds']:.2f}", f"{row['down_seconds']:.2f}", f"{dense[row['model']] / seconds:.1f}"]
        table.append(f"| {' | '.join([row['model'], row['entry'], *counts, *times])} |")
    (HERE / "slow_link.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
