"""The experiment: every setting of a run, checked, with one place in the file, on the command line and in `run()`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from thinwire import parameterisations
from thinwire.errors import ConfigError, one_of, shown, unknown_field
from thinwire.methods import DEFAULTS, METHODS, PRESETS, aggregate, server

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=2**31)]
PUBLIC_KEY = re.compile(r"ecdsa-sha2-nistp\d+ [A-Za-z0-9+/]{40,}=*")  # as OpenSSH writes it, without a comment


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def _one_of(values: Any, section: str, sources: tuple[str, ...], default: str) -> Any:
    """The section's values, with the default name when no source is given; ConfigError when several are."""
    if not isinstance(values, Mapping):
        return values
    given = {source: values[source] for source in sources if values.get(source) is not None}
    if len(given) > 1:
        raise ConfigError(section, given, f"one of {', '.join(sources)}")
    return values if given else {**values, "name": default}


class DataSettings(_Section):
    """Which data, and how they are spread over the clients."""

    name: str | None = None
    path: str | None = None
    load: str | None = None
    clients: Positive = 10
    partition: str = "iid"
    allow_empty: bool = False
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of each client's samples, held back for evaluation

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, values: Any) -> Any:
        return _one_of(values, "data", ("name", "path", "load"), "digits")

    @property
    def source(self) -> str:
        """What the loader is asked for."""
        return self.path or self.load or self.name or ""


class ModelSettings(_Section):
    """Which model: one of the library's or a function of one's own."""

    name: str | None = None
    build: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, values: Any) -> Any:
        return _one_of(values, "model", ("name", "build"), "mlp")

    @property
    def source(self) -> str:
        """What the builder is asked for."""
        return self.build or self.name or ""


class CohortSettings(_Section):
    """Who takes part in a round: a fraction of the clients, or so many of them; and what a round waits for.

    min_replies: updates that a round must have to count. A round without them ends the run (`stop`), is played again
    with another cohort, `tries` times at most (`repeat`), or leaves the model as it is (`skip`). On machines of
    their own, clients may be late: oversample times as many are asked, the first replies win; after round_timeout
    seconds the round goes on with those it has. join_timeout: seconds that the first round waits for the clients it
    asks to be there. keys: public key of a SuperNode (type and key of its .pub file) = the client that it is; with
    them, no other node is any client. On one machine, worker_timeout: seconds after which a worker process that is not
    done with one client is killed, and the client's answer is late; without it, the run waits.
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    size: Positive | None = None
    min_replies: Positive = 1
    without_quorum: Literal["stop", "repeat", "skip"] = "stop"
    tries: Positive = 5
    oversample: Annotated[float, Field(ge=1, le=100)] = 1.0
    round_timeout: Annotated[float, Field(gt=0, lt=1e6)] = 3600.0
    join_timeout: Annotated[float, Field(ge=0, lt=1e6)] = 300.0
    worker_timeout: Annotated[float, Field(gt=0, lt=1e6)] | None = None
    keys: dict[str, int] = Field(default_factory=dict)

    @field_validator("keys")
    @classmethod
    def _without_comments(cls, keys: dict[str, int]) -> dict[str, int]:
        found = {" ".join(key.split()[:2]): client for key, client in keys.items()}
        if wrong := [key for key in found if not PUBLIC_KEY.fullmatch(key)]:
            allowed = 'the line of a SuperNode\'s .pub file, "ecdsa-sha2-nistp384 AAAA…" = its client'
            raise ConfigError("cohort.keys", shown(wrong[0], 40), allowed)
        return found

    def share(self, clients: int) -> float:
        """The fraction of the clients that a round asks."""
        return self.fraction if self.size is None else min(1.0, self.size / clients)


class LocalSettings(_Section):
    """How a client trains. together: all steps of a cohort's clients at once; `auto`: on a GPU, where they can."""

    epochs: Positive = 1
    batch_size: Positive = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Annotated[float, Field(ge=0, lt=1e6)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, lt=1e6)] = 0.0
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip: Annotated[float, Field(ge=0, lt=1e6)] = 0.0  # the longest gradient of a step; 0: as it is
    together: Literal["auto", True, False] = "auto"


class CheckpointSettings(_Section):
    """After how many rounds the run is saved; megabytes of client state kept in memory, the rest lies on disk."""

    every: Positive = 1
    memory_mb: Annotated[int, Field(ge=0, le=2**31)] = 512


class EvaluationSettings(_Section):
    """After how many rounds clients score the model on samples that they hold back; 0: after the last one only.

    server_every: likewise for the server's model on the test split. The last round is always scored.
    """

    every: Annotated[int, Field(ge=0, le=2**31)] = 0
    server_every: Positive = 1


class LinkSettings(_Section):
    """Links that the time of a round is told for: 10⁶ bit/s, ms of one direction; σ of a log-normal factor a client."""

    up_mbps: Annotated[float, Field(gt=0, lt=1e9)]
    down_mbps: Annotated[float, Field(gt=0, lt=1e9)]
    latency_ms: Annotated[float, Field(gt=0, lt=1e9)]
    spread: Annotated[float, Field(ge=0, le=10)] = 0.0


class FaultSettings(_Section):
    """What goes wrong in a simulated run (`runtime.faults`): rates of answers, seconds, fractions of the clients."""

    drop: Share = 0.0
    delay: Annotated[float, Field(ge=0, lt=1e6)] = 0.0  # seconds, the mean of an exponential distribution
    deadline: Annotated[float, Field(gt=0, lt=1e6)] | None = None  # of a round, in such seconds
    mutate: Share = 0.0
    replay: Share = 0.0
    wrong_layout: Share = 0.0
    nan: Share = 0.0
    scale: Share = 0.0
    scale_by: Annotated[float, Field(gt=-1e6, lt=1e6)] = 10.0  # below 0: the opposite, and larger
    sign_flip: Share = 0.0

    @model_validator(mode="after")
    def _together(self) -> FaultSettings:
        if bool(self.delay) != (self.deadline is not None):
            raise ConfigError("faults.deadline", self.deadline, "given together with delay, or neither of them")
        if (malicious := self.nan + self.scale + self.sign_flip) > 1:
            raise ConfigError("faults.nan + scale + sign_flip", malicious, "at most 1: they are different clients")
        return self

    @property
    def any(self) -> bool:
        """Does anything go wrong?"""
        return self != FaultSettings(scale_by=self.scale_by)


class Experiment(_Section):
    """Every setting of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**56)] = 0
    rounds: Positive = 30
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataSettings = DataSettings.model_validate({})
    model: ModelSettings = ModelSettings.model_validate({})
    cohort: CohortSettings = CohortSettings()
    local: LocalSettings = LocalSettings()
    method: dict[str, Any] = Field(default_factory=lambda: {"name": "fedpm"})
    uplink: dict[str, Any] = Field(default_factory=dict)
    downlink: dict[str, Any] = Field(default_factory=dict)
    server: dict[str, Any] = Field(default_factory=lambda: {"optimizer": "mean"})
    parameterisation: dict[str, Any] = Field(default_factory=lambda: {"name": "dense"})
    checkpoint: CheckpointSettings = CheckpointSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    link: LinkSettings | None = None
    faults: FaultSettings = FaultSettings()
    versions: dict[str, str] = Field(default_factory=dict)  # what the run was made with; has no effect

    @field_validator("server")
    @classmethod
    def _server(cls, settings: dict[str, Any]) -> dict[str, Any]:
        server.from_config(settings)
        server.norm_bound(settings)
        server.vote_bound(settings)
        aggregate.from_config(settings)
        return settings

    @field_validator("parameterisation")
    @classmethod
    def _parameterisation(cls, settings: dict[str, Any]) -> dict[str, Any]:
        parameterisations.from_config(settings)
        return settings

    @model_validator(mode="after")
    def _keys_of_clients(self) -> Experiment:
        if unknown := [number for number in self.cohort.keys.values() if not 0 <= number < self.data.clients]:
            raise ConfigError("cohort.keys", unknown[0], f"a client of the experiment, 0 to {self.data.clients - 1}")
        return self

    @model_validator(mode="after")
    def _something_to_evaluate_on(self) -> Experiment:
        if self.evaluation.every and not self.data.test_fraction:
            allowed = "0 unless data.test_fraction is above 0: no client holds samples back"
            raise ConfigError("evaluation.every", self.evaluation.every, allowed)
        return self

    def evaluates(self, round: int) -> bool:
        """Do clients evaluate after this round, counted from 1?"""
        every = self.evaluation.every
        return bool(self.data.test_fraction) and (round == self.rounds or bool(every and round % every == 0))

    def scores(self, round: int) -> bool:
        """Is the server's model scored after this round, counted from 1?"""
        return round == self.rounds or round % self.evaluation.server_every == 0


def parse(settings: Mapping[str, Any]) -> Experiment:
    """The experiment that plain settings describe, presets unfolded; ConfigError names the first wrong field."""
    unfolded = _unfold(settings)
    try:
        return Experiment.model_validate(unfolded)
    except ValidationError as error:
        raise _config_error(error) from None


def _unfold(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings on top of the fragment that their method or preset stands for; ConfigError for an unknown name."""
    method = settings.get("method", {})
    if not isinstance(method, Mapping):
        raise ConfigError("method", method, "a table with a name, for example [method] name = 'fedpm'")
    name = method.get("name", "fedpm")
    if isinstance(name, str) and name in PRESETS:
        own = {key: value for key, value in method.items() if key != "name"}
        return _unfold(merge(PRESETS[name], {**settings, "method": own}))
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError("method.name", name, one_of(name, sorted([*METHODS, *PRESETS])))
    return merge({"method": {"name": name}, **DEFAULTS.get(name, {})}, settings)


def _dotted_keys() -> list[str]:
    """Every key of the sections that have a fixed list of them: local.lr, data.clients …"""
    sections = {name: _section(Experiment, name) for name in Experiment.model_fields}
    return [f"{name}.{key}" for name, section in sections.items() for key in getattr(section, "model_fields", ())]


def _section(parent: Any, name: str) -> Any:
    """The class of a section; of `LinkSettings | None`, the section."""
    annotation = parent.model_fields[name].annotation
    return next(iter(get_args(annotation)), annotation)


def _config_error(error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    if isinstance(ours := first.get("ctx", {}).get("error"), ConfigError):
        return ours
    field = ".".join(str(part) for part in first["loc"]) or "experiment"
    if first["type"] == "extra_forbidden":
        section: Any = Experiment
        for part in first["loc"][:-1]:
            section = _section(section, str(part))
        known = section.model_fields
        elsewhere = [key for key in _dotted_keys() if not key.startswith(f"{field.rpartition('.')[0]}.")]
        return ConfigError(field, first["input"], unknown_field(first["loc"][-1], known, elsewhere))
    if first["type"] == "missing":
        return ConfigError(field, None, f"must be given where there is a section [{first['loc'][0]}]")
    return ConfigError(field, first["input"], first["msg"][0].lower() + first["msg"][1:])


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, those of `over` on top."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_file(path: Path) -> dict[str, Any]:
    """Settings of a TOML file; ConfigError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("experiment", str(path), "a TOML file that exists") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError("experiment", str(path), f"a readable TOML file ({error})") from None


def dotted(key: str, value: Any) -> dict[str, Any]:
    """{'a': {'b': value}} for 'a.b'."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def assignment(text: str) -> dict[str, Any]:
    """Settings of one `--set key=value`; the value is read as TOML, else taken as a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError("--set", text, "key=value with a dotted key, for example method.epsilon=0.01")
    try:
        return dotted(key.strip(), tomllib.loads(f"v = {value}")["v"])
    except tomllib.TOMLDecodeError:
        return dotted(key.strip(), value.strip())


def to_toml(experiment: Experiment) -> str:
    """The experiment as TOML text: all that is needed to repeat it."""
    import tomli_w

    return tomli_w.dumps(experiment.model_dump(exclude_none=True))
