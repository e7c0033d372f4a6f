"""What a process builds the clients of a run from where it inherits nothing: settings as JSON, arrays as files.

The files are mapped, not read: however many processes there are, the samples are in memory once. The data set is not
loaded again, nor dealt again: every process has the very samples of the run's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from thinwire.data import Dataset, Split
from thinwire.data.parts import Dealt, Drawn, Parts
from thinwire.runtime import faults
from thinwire.runtime.assembly import Assembly
from thinwire.runtime.client import Clients
from thinwire.runtime.experiment import Experiment

Recipe = dict[str, Any]


def clients_of(assembly: Assembly) -> Clients:
    """The clients of a run, those with faults among them."""
    return Clients(faults.played(assembly), assembly.client_data, assembly.run_id, assembly.evaluation_data)


def write(assembly: Assembly, folder: Path) -> Recipe:
    """Write the samples and who holds which of them into a folder. -> all else, plain values for JSON."""
    dataset, parts = assembly.dataset, assembly.parts
    arrays = {"x": dataset.train.x, "y": dataset.train.y}
    if isinstance(parts, Drawn):
        dealt = vars(parts)
    else:
        rows, dealt = [parts[client] for client in range(len(parts))], {}
        arrays |= {"rows": np.concatenate(rows), "sizes": np.array([len(part) for part in rows])}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return {
        "experiment": assembly.experiment.model_dump(), "device": assembly.device, "folder": str(folder),
        "name": dataset.name, "classes": dataset.classes, "drawn": dealt,
    }  # fmt: skip


def read(recipe: Recipe) -> Assembly:
    """Inverse of `write`, but for the test split and the further columns, which no client needs.

    ConfigError where a function of one's own is not found in this process.
    """
    folder = Path(recipe["folder"])
    train = Split(_mapped(folder, "x"), _mapped(folder, "y"))
    nothing = Split(train.x[:0], train.y[:0])
    dataset = Dataset(recipe["name"], train, nothing, recipe["classes"])
    experiment = Experiment.model_validate(recipe["experiment"])
    return Assembly(experiment, dataset, _parts(folder, recipe["drawn"]), recipe["device"])


def _parts(folder: Path, drawn: dict[str, int]) -> Parts:
    if drawn:
        return Drawn(**drawn)
    ends = np.cumsum(_mapped(folder, "sizes"))
    return Dealt(np.split(_mapped(folder, "rows"), ends[:-1]))


def _mapped(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
