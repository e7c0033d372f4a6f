"""An experiment made ready to run: data loaded and dealt, method and model built; every wrong setting shows here."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version as package_version
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import nn

from thinwire import data as datasets
from thinwire import models, parameterisations
from thinwire.codecs import CODECS, Codec, from_config, to_config
from thinwire.data import Dataset, split_local
from thinwire.data.partition import held_back
from thinwire.data.parts import Parts
from thinwire.errors import ConfigError, DataError
from thinwire.methods import METHODS, Data, Method, Setup, aggregate, base, server
from thinwire.purity import drawing, plain
from thinwire.rng import integer
from thinwire.runtime.claims import Claims
from thinwire.runtime.experiment import Experiment
from thinwire.runtime.link import Link
from thinwire.train import Local, evaluate, obstacle_alone
from thinwire.train_together import obstacle

SHAPES_NO_FRAME: Any = {
    **dict.fromkeys(
        ("rounds", "device", "uplink", "downlink", "versions", "checkpoint", "evaluation", "link", "faults"), True
    ),
    "cohort": {
        "min_replies",
        "oversample",
        "round_timeout",
        "join_timeout",
        "worker_timeout",
        "without_quorum",
        "tries",
        "keys",
    },
    "local": {"together"},
}


@dataclass(frozen=True)
class Assembly:
    """An experiment with its data dealt and its method built. A client's samples are taken when it is asked."""

    experiment: Experiment
    dataset: Dataset
    parts: Parts
    device: str

    @cached_property
    def method(self) -> Method:
        """The method over this experiment's set-up."""
        settings = dict(self.experiment.method)
        return METHODS[settings.pop("name")](self.setup, settings)

    @cached_property
    def setup(self) -> Setup:
        """What server and clients are built from."""
        uplink, downlink = dict(self.experiment.uplink), dict(self.experiment.downlink)
        feedback = _share(uplink.pop("error_feedback", False), "uplink.error_feedback")
        return replace(
            self._without_codecs,
            uplink=_codec(uplink, "uplink", self, ("error_feedback",)),
            downlink=_codec(downlink, "downlink", self),
            error_feedback=feedback,
        )

    @property
    def _without_codecs(self) -> Setup:
        experiment = self.experiment
        return Setup(
            build=self.build,
            local=Local(**experiment.local.model_dump(exclude={"together"})),
            seed=experiment.seed,
            run=self._shaping,
            fraction=experiment.cohort.share(len(self.clients)),
            device=self.device,
            server=server.from_config(experiment.server),
            aggregate=aggregate.from_config(experiment.server),
            max_update_norm=server.norm_bound(experiment.server),
            max_votes_against=server.vote_bound(experiment.server),
            parameterisation=parameterisations.from_config(experiment.parameterisation),
            clients=len(self.clients),
        )

    def dtype(self, way: str) -> str:
        """Of the arrays that a codec of `uplink` or `downlink` is for."""
        settings = dict(self.experiment.method)
        method = METHODS[settings.pop("name")](self._without_codecs, settings)
        return method.uplink.dtype if way == "uplink" else method.downlink.dtype

    @property
    def resolved(self) -> Experiment:
        """The experiment with its codecs spelt out and what it was made with: config.toml."""
        uplink = to_config(self.method.uplink) | {"error_feedback": self.setup.error_feedback}
        update = {"uplink": uplink, "downlink": to_config(self.method.downlink), "versions": versions()}
        local = self.experiment.local.model_copy(update={"together": self.together})
        return self.experiment.model_copy(update=update | {"local": local})

    @cached_property
    def together(self) -> bool:
        """Do the clients of a cohort train together? ConfigError when they are asked to and cannot."""
        asked = self.experiment.local.together
        if not asked or (asked == "auto" and self.device == "cpu"):
            return False
        reason = self._obstacle()
        if reason and asked is True:
            method = self.experiment.method["name"]
            raise ConfigError("local.together", asked, f"false or auto for this {method} and model ({reason})")
        return not reason

    def _obstacle(self) -> str:
        """Why clients cannot train together; empty if they can."""
        if self.method.train_together is None:
            return "the method trains client by client, or the model has buffers or frozen parameters"
        if self.experiment.faults.any:
            return "[faults] befall one client at a time"
        train = self.dataset.train.take(np.arange(2))
        return obstacle(base.network(self.setup), train.x, train.y)

    @property
    def run_id(self) -> int:
        """32 bits that frames of this run carry: a digest of everything that shapes them."""
        return self.method.run

    @cached_property
    def _shaping(self) -> int:
        """A digest of the settings that shape frames, but for the codecs, which the method knows."""
        shaping = self.experiment.model_dump(exclude=SHAPES_NO_FRAME)
        return crc32(json.dumps(shaping, sort_keys=True).encode())

    @property
    def link(self) -> Link | None:
        """The links that rounds are timed for, if the experiment has any."""
        settings = self.experiment.link
        return Link(**settings.model_dump(), seed=self.experiment.seed) if settings else None

    @cached_property
    def build(self) -> Callable[[], nn.Module]:
        """What makes a fresh model for these data."""
        return models.builder(self.experiment.model.source, self.dataset.shape, self.dataset.classes)

    @property
    def description(self) -> dict[str, Any]:
        """What a model file says of its architecture; a model of one's own stays nameless."""
        name = self.experiment.model.source
        known = {"name": name} if name in models.MODELS else {}
        return known | {"shape": list(self.dataset.shape), "classes": self.dataset.classes}

    def fresh(self) -> nn.Module:
        """The model that both ends start from, before any method changes it."""
        return base.seeded(self.build, self.experiment.seed)

    @cached_property
    def clients(self) -> Sequence[int]:
        """Clients that hold samples they can train on; the others are never asked."""
        holders = self.parts.holders
        fraction = self.experiment.data.test_fraction
        alone = self.parts.where(lambda size: size - held_back(size, fraction) == 1)
        every = self.experiment.local.batch_size == 1
        if not (alone or every) or not (reason := self._alone()):
            return holders
        if every:
            raise ConfigError("local.batch_size", 1, f"at least 2 for this model ({reason})")
        if not self.experiment.data.allow_empty:
            named = ", ".join(map(str, alone[:5])) + (", …" if alone[5:] else "")
            raise DataError(
                f"clients {named} ({len(alone)} of {len(holders)}) have one sample each, on which this model cannot "
                f"train ({reason}): choose fewer clients or another partition, or allow empty clients"
            )
        left_out = set(alone)
        return [client for client in holders if client not in left_out]

    def _alone(self) -> str:
        """Why the model cannot train on one sample; empty if it can."""
        split = self.dataset.train.take(np.arange(1))
        return obstacle_alone(self.fresh(), split.x, split.y)

    @property
    def cohort_size(self) -> int:
        """Clients of one round."""
        return max(1, round(self.setup.fraction * len(self.clients)))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Accuracy and loss of a model on the test split."""
        with drawing(integer(self.experiment.seed, purpose="evaluate"), self.device):
            return evaluate(model, self.dataset.test.x, self.dataset.test.y)

    def split(self, client: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the samples that a client trains on and of those that it holds back."""
        fraction = self.experiment.data.test_fraction
        return split_local(self.parts[client], fraction, self.experiment.seed, client)

    def client_data(self, client: int) -> Data:
        """The samples that a client trains on."""
        split = self.dataset.train.take(self.split(client)[0])
        return Data(client, split.x, split.y)

    def evaluation_data(self, client: int) -> Data:
        """The samples that a client trains on and those that it holds back."""
        train, test = (self.dataset.train.take(rows) for rows in self.split(client))
        return Data(client, train.x, train.y, test.x, test.y)

    def held_back(self, client: int) -> int:
        """How many samples a client holds back."""
        return held_back(self.parts.size(client), self.experiment.data.test_fraction)

    @cached_property
    def claims(self) -> Claims:
        """How many samples clients may say they have trained on, where these are the ones that they were dealt."""
        return Claims(self._trained_on, server.sample_bound(self.experiment.server))

    @property
    def tested(self) -> Claims:
        """How many samples clients may say they were scored on, where these are the ones that they were dealt."""
        return Claims(self.held_back)

    def _trained_on(self, client: int) -> int:
        return self.parts.size(client) - self.held_back(client)

    @cached_property
    def test_samples(self) -> dict[int, int]:
        """How many samples each client holds back; clients that hold back none are left out."""
        counts = {client: self.held_back(client) for client in self.clients}
        return {client: count for client, count in counts.items() if count}

    @property
    def train_samples(self) -> dict[int, int]:
        """How many samples the clients that hold some back train on."""
        return {client: self.parts.size(client) - count for client, count in self.test_samples.items()}


def _share(value: Any, where: str) -> bool | float:
    """A switch or a share: true is 1, false is 0."""
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise ConfigError(where, value, "true, false, or the share of what was lost that is kept, 0 to 1")
    return bool(value) if value in (0, 1) else float(value)


def _codec(config: Mapping[str, Any], where: str, assembly: Assembly, others: Sequence[str] = ()) -> Codec | None:
    if not config:
        return None
    known = str(config.get("id")) in CODECS
    try:
        return from_config(config, "" if known else assembly.dtype(where), others)
    except ConfigError as error:
        field = error.field if error.field == "codec id" else error.field.partition(".")[2]
        raise ConfigError(f"{where}.{field.replace('codec ', '')}", error.value, error.allowed) from None


@plain()
def assemble(experiment: Experiment, dataset: Dataset | None = None) -> Assembly:
    """Load the data unless they are given, deal them out, build the method; every wrong setting shows here."""
    settings = experiment.data
    dataset = datasets.load(settings.source) if dataset is None else dataset
    parts = datasets.partition(dataset, settings.partition, settings.clients, experiment.seed, settings.allow_empty)
    assembly = Assembly(experiment, dataset, parts, _device(experiment.device))
    if settings.test_fraction and not any(assembly.held_back(client) for client in assembly.clients):
        allowed = "so large that some client holds a sample back, or 0"
        raise ConfigError("data.test_fraction", settings.test_fraction, allowed)
    # built here so that a wrong setting ends the run before it leaves a directory
    assembly.method, assembly.together, assembly.claims  # noqa: B018
    _try_out(assembly)
    return assembly


def _try_out(assembly: Assembly) -> None:
    """ConfigError unless the model takes two of the samples and has an output for every class."""
    experiment, some = assembly.experiment, assembly.dataset.train.take(np.arange(min(2, len(assembly.dataset.train))))
    model = assembly.method.model(assembly.method.init())
    with drawing(experiment.seed, assembly.device):
        models.check(experiment.model.source, model, some.x, some.y, assembly.dataset.classes)


def _device(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device", asked, "cpu or auto: no CUDA device is available here")
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def versions() -> dict[str, str]:
    """What the run was made with."""
    return {"python": platform.python_version()} | {
        name: package_version(name) for name in ("thinwire", "torch", "numpy")
    }
