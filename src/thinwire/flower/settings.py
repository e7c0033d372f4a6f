"""The experiment of a Flower app: a file beside its code, with run-config values on top.

Both apps of a run read the same: `thinwire.toml` travels in the bundle, run-config values with the run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Context

from thinwire.errors import ConfigError
from thinwire.runtime.assembly import Assembly, assemble
from thinwire.runtime.experiment import Experiment, dotted, merge, parse, read_file, to_toml
from thinwire.runtime.trust import imports

OWN = ("out",)  # run-config keys that are the app's, not the experiment's
Source = str | Path | Mapping[str, Any] | Experiment


def experiment_of(source: Source, run_config: Mapping[str, Any]) -> Experiment:
    """The checked experiment; run-config keys are those of the file, dotted (`method.density`), and `out`."""
    if isinstance(source, Experiment):
        settings: Mapping[str, Any] = source.model_dump(exclude_none=True)
    else:
        settings = source if isinstance(source, Mapping) else read_file(Path(source))
    for key, value in run_config.items():
        section, _, name = key.partition(".")
        if imports(key, value) and not imports(key, (settings.get(section) or {}).get(name)):
            allowed = "set in the app's own experiment: a run's configuration does not choose which code nodes import"
            raise ConfigError(f"run-config {key}", value, allowed)
        if key not in OWN:
            settings = merge(settings, dotted(key, value))
    return parse(settings)


def assembly_of(source: Source, context: Context) -> Assembly:
    """The experiment made ready; the last few are kept, for processes that serve many messages."""
    return _assembled(to_toml(experiment_of(source, context.run_config)))


@lru_cache(maxsize=4)
def _assembled(experiment: str) -> Assembly:
    return assemble(parse(tomllib.loads(experiment)))
