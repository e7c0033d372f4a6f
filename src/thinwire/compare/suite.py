"""A suite: experiments by name, the seeds and directories of their runs; wrong settings show before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire.data import Dataset
from thinwire.data import load as load_data
from thinwire.errors import ConfigError, DataError, did_you_mean
from thinwire.machine import cores
from thinwire.methods import METHODS, PRESETS
from thinwire.modelfile import save_bytes
from thinwire.runtime.assembly import Assembly, assemble
from thinwire.runtime.experiment import Experiment, merge, parse, read_file, to_toml
from thinwire.runtime.run import CONFIG, SUMMARY

OWN = ("entries", "seeds", "targets")  # a suite's own keys; the others are settings of all its entries
SEEDS = "different whole numbers from 0 to 2^56 - 1, for example [0, 1, 2]"
TARGETS = "different accuracies above 0 and at most 1, for example [0.9, 0.95]"
Wrong = ConfigError | DataError


@dataclass(frozen=True)
class Planned:
    """One run of a suite: what it is called, the entry that it is of, its experiment, its directory."""

    label: str
    entry: str
    experiment: Experiment
    folder: Path

    @property
    def done(self) -> bool:
        """Is there nothing left to play?"""
        return (self.folder / SUMMARY).exists()

    @property
    def asked(self) -> Path:
        """The file beside the directory that keeps what was asked for."""
        return asked_file(self.folder)


@dataclass(frozen=True)
class Plan:
    """What a suite asks for: its runs, those of one entry after the other, and the accuracies that count."""

    out: Path
    runs: tuple[Planned, ...]
    targets: tuple[float, ...] = ()

    @property
    def pending(self) -> list[Planned]:
        """The runs that are not done."""
        return [run for run in self.runs if not run.done]

    @property
    def rounds(self) -> int:
        """How many rounds the runs that are not done have."""
        return sum(run.experiment.rounds for run in self.pending)

    def ask(self) -> None:
        """Write down what the runs that are not done are asked for, each beside its directory."""
        for run in self.pending:
            run.asked.parent.mkdir(parents=True, exist_ok=True)
            save_bytes(to_toml(run.experiment).encode(), run.asked)


def asked_file(folder: Path) -> Path:
    """Where a run's experiment is kept as it was asked for: OUT/NAME.toml for OUT/NAME."""
    return folder.with_name(folder.name + ".toml")


def processes(jobs: str) -> int:
    """How many runs are played at a time: a number, or `auto` for one a core that this process may use."""
    if jobs == "auto":
        return cores()
    if not jobs.isdecimal() or int(jobs) < 1:
        raise ConfigError("jobs", jobs, "a whole number from 1, or auto")
    return int(jobs)


def read(
    words: Sequence[str],
    options: Mapping[str, Any] | None = None,
    seeds: str | None = None,
    targets: str | None = None,
) -> dict[str, Any]:
    """The suite that the words name, with settings and lists of a command line on top.

    One TOML file, or methods and presets, each an entry with its own defaults. A seed among the options is the only
    one, whatever seeds the file has.
    """
    suite = merge(_named(words), options or {})
    if options and "seed" in options:
        if seeds is not None:
            raise ConfigError("seeds", seeds, "not together with a single seed")
        suite.pop("seeds", None)
    given = {"seeds": _list("seeds", seeds, int, SEEDS), "targets": _list("targets", targets, float, TARGETS)}
    return suite | {name: values for name, values in given.items() if values is not None}


def _named(words: Sequence[str]) -> dict[str, Any]:
    if len(words) == 1 and words[0].endswith(".toml"):
        return read_file(Path(words[0]))
    known = sorted([*METHODS, *PRESETS])
    for word in words:
        if word not in known:
            raise ConfigError("suite", word, f"a TOML file, or some of {', '.join(known)}{did_you_mean(word, known)}")
    return {"entries": {word: {"method": {"name": word}} for word in words}}


def _list(name: str, text: str | None, kind: type[int] | type[float], allowed: str) -> list[int | float] | None:
    """Numbers with commas between them."""
    try:
        return None if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(name, text, f"{allowed.partition(',')[0]}, with commas between them") from None


def entries(suite: Mapping[str, Any]) -> dict[str, Experiment]:
    """The experiments of a suite: its `entries` are fragments by name, each on top of everything else in it.

    ConfigError for a wrong setting; those of further entries are its notes.
    """
    found, wrong = parsed(suite)
    refuse(wrong, {*found, *wrong})
    return found


def parsed(suite: Mapping[str, Any]) -> tuple[dict[str, Experiment], dict[str, Wrong]]:
    """The experiments of a suite by name, and what is wrong with the entries that are none."""
    fragments = suite.get("entries")
    if not isinstance(fragments, Mapping) or not fragments:
        raise ConfigError("entries", fragments, "a table of experiment fragments, [entries.NAME]")
    found, wrong = dict[str, Experiment](), dict[str, Wrong]()
    for name in fragments:
        try:
            found[_checked(name)] = parse(settings(suite, name))
        except ConfigError as error:
            wrong[name] = error
    return found, wrong


def settings(suite: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of an entry: its fragment on top of what all share."""
    fragment = suite["entries"][name]
    if not isinstance(fragment, Mapping):
        raise ConfigError("experiment", fragment, "a table of settings")
    return merge({key: value for key, value in suite.items() if key not in OWN}, fragment)


def _checked(name: str) -> str:
    if not name or any(not (c.isalnum() or c in "-_.") for c in name) or name.startswith("."):
        raise ConfigError("name", name, "names of letters, digits, '-', '_' and '.', which does not come first")
    return name


def plan(suite: Mapping[str, Any], out: Path) -> Plan:
    """Every run of a suite and its directory: OUT/NAME, or OUT/NAME/seed-S where the suite has seeds.

    ConfigError for a wrong setting (those of further entries are its notes), and when a directory has another run.
    """
    found, seeds = entries(suite), _seeds(suite)
    runs = []
    for name, experiment in found.items():
        if seeds is None:
            runs.append(Planned(name, name, experiment, out / name))
        for seed in seeds or ():
            label = f"{name}/seed-{seed}"
            runs.append(Planned(label, name, experiment.model_copy(update={"seed": seed}), out / label))
    for run in runs:
        _refuse_other(run)
    return Plan(out, tuple(runs), _targets(suite))


def _seeds(suite: Mapping[str, Any]) -> tuple[int, ...] | None:
    if "seeds" not in suite:
        return None
    seeds = _different("seeds", suite["seeds"], SEEDS)
    if any(type(seed) is not int or not 0 <= seed < 2**56 for seed in seeds):
        raise ConfigError("seeds", suite["seeds"], SEEDS)
    for name, fragment in suite["entries"].items():
        if "seed" in fragment:
            raise ConfigError(f"entries.{name}: seed", fragment["seed"], "no seed of its own where the suite has seeds")
    return seeds


def _targets(suite: Mapping[str, Any]) -> tuple[float, ...]:
    targets = _different("targets", suite["targets"], TARGETS) if "targets" in suite else ()
    if any(type(target) not in (int, float) or not 0 < target <= 1 for target in targets):
        raise ConfigError("targets", suite["targets"], TARGETS)
    return tuple(float(target) for target in targets)


def _different(name: str, values: Any, allowed: str) -> tuple[Any, ...]:
    """The values of a list; ConfigError when there are none or one comes twice."""
    if not isinstance(values, list) or not values or any(values.count(value) > 1 for value in values):
        raise ConfigError(name, values, allowed)
    return tuple(values)


def _refuse_other(run: Planned) -> None:
    """ConfigError unless a run's directory is new or holds a run of this very experiment."""
    taken = run.folder.exists() and any(run.folder.iterdir())
    if (run.folder.parent / CONFIG).exists() or (taken and not _same(run)):
        raise ConfigError("out", str(run.folder), "a directory without runs of other settings; choose another --out")


def _same(run: Planned) -> bool:
    return run.asked.exists() and to_toml(parse(read_file(run.asked))) == to_toml(run.experiment)


def check(plan: Plan) -> None:
    """Assemble every run that is still to play, each data set loaded once.

    ConfigError or DataError names the entry and what is wrong with it; those of further entries are its notes.
    """
    refuse(misfits(plan), {run.entry for run in plan.pending})


def misfits(plan: Plan, look: Callable[[Assembly], object] = lambda assembly: None) -> dict[str, Wrong]:
    """What is wrong with entries, or with runs of them, that cannot be assembled or where `look` raises an error."""
    data, wrong = dict[str, Dataset | Wrong](), dict[str, Wrong]()
    for run in plan.pending:
        try:
            look(assemble(run.experiment, _loaded(data, run.experiment.data.source)))
        except (ConfigError, DataError) as error:
            wrong[run.label] = error
    return _of_entries(plan.pending, wrong)


def _of_entries(runs: Sequence[Planned], wrong: Mapping[str, Wrong]) -> dict[str, Wrong]:
    """Errors by run; by entry where all its seeds have the same."""
    found = dict[str, Wrong]()
    for run in runs:
        told = {str(wrong.get(other.label)) for other in runs if other.entry == run.entry}
        if run.label in wrong:
            found[run.entry if len(told) == 1 else run.label] = wrong[run.label]
    return found


def _loaded(data: dict[str, Dataset | Wrong], source: str) -> Dataset:
    """A data set, from memory if it was asked for before; the same error as then if there was one."""
    if source not in data:
        try:
            data[source] = load_data(source)
        except (ConfigError, DataError) as error:
            data[source] = error
    found = data[source]
    if isinstance(found, Dataset):
        return found
    raise found


def refuse(wrong: Mapping[str, Wrong], entries: set[str]) -> None:
    """Raise the first entry's error with the others' as notes; one that several entries all share, without a name."""
    if len(entries) > 1 and set(wrong) == entries and len({str(error) for error in wrong.values()}) == 1:
        raise next(iter(wrong.values()))
    errors = [_of_entry(name, error) for name, error in wrong.items()]
    for error in errors[1:]:
        errors[0].add_note(str(error))
    if errors:
        raise errors[0]


def _of_entry(name: str, error: Wrong) -> Wrong:
    if isinstance(error, ConfigError):
        return ConfigError(f"entries.{name}: {error.field}", error.value, error.allowed)
    return DataError(f"entries.{name}: {error}")
