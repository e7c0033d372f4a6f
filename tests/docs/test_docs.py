"""The documentation: what it tells a reader to type works, its tables are the code's, its figures the data's."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args, get_origin

import pytest
import torch
from blocks import BLOCK, blocks, play
from pydantic import BaseModel

from thinwire import compare
from thinwire.codecs import CODECS
from thinwire.methods import METHODS, PRESETS, server
from thinwire.methods.fedavg import Options
from thinwire.parameterisations.config import PARAMETERISATIONS
from thinwire.runtime import catalogue
from thinwire.runtime.experiment import Experiment, parse

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ROW = re.compile(r"^\| *(.*?) *\|$", re.MULTILINE)


def name_of(page):
    return str(page.relative_to(DOCS))


def rows(page, marker):
    """Cells of the table that follows a marker, without its head."""
    text = page.read_text()
    assert text.count(marker) == 1, f"{marker} in {name_of(page)}"
    table = text.split(marker, 1)[1].lstrip("\n").split("\n\n", 1)[0]
    return [re.split(r" *\| *", row) for row in ROW.findall(table)][2:]


def code(cell):
    """What stands in backticks."""
    return re.findall(r"`([^`]*)`", cell)


def tables(kind):
    """(page, what the marker names) of all markers of a kind."""
    found = [(page, name) for page in PAGES for name in re.findall(rf"<!-- {kind}: (.*?) -->", page.read_text())]
    assert found
    return found


@pytest.fixture(autouse=True)
def one_thread():
    """Workers are forked: this process must have no threads of torch's own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# code blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    play(page, tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(BLOCK.sub("", (ROOT / "README.md").read_text(), count=1))  # without the two commands
    play(page, tmp_path, monkeypatch)
    assert (tmp_path / "runs" / "first" / "report.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_that_is_not_run_says_why(page):
    text, found = page.read_text(), blocks(page)
    assert text.count("```") == 2 * len(found), "a block that is indented or has no language"
    assert text.count("<!-- not run") == sum(block.reason is not None for block in found)
    for block in found:
        assert block.language in ("sh", "python", "toml"), block.language
        assert block.reason is None or len(block.reason) > 8, block.text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_toml_is_of_an_experiment_or_a_suite(page):
    for block in blocks(page):
        if block.language == "toml":
            settings = tomllib.loads(block.text)
            assert compare.entries(settings) if "entries" in settings else parse(settings)


# tables ---------------------------------------------------------------------------------------------------------------


def toml(value):
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def own_fields(kind):
    """{name: default as TOML} of the fields that a record adds to those that it inherits."""
    inherited = {
        field.name for base in kind.__mro__[1:] if hasattr(base, "__dataclass_fields__") for field in fields(base)
    }
    defaults = {f.name: f.default_factory() if f.default is MISSING else f.default for f in fields(kind)}
    return {name: toml(value) for name, value in defaults.items() if name not in inherited}


def record(name):
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(module), kind)


@pytest.mark.parametrize(("page", "name"), tables("options"))
def test_a_table_of_options_is_that_of_the_code(page, name):
    listed = {code(row[0])[0]: code(row[1])[0] for row in rows(page, f"<!-- options: {name} -->")}
    assert listed == own_fields(record(name))


def descendants(kind):
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


def test_every_record_of_options_is_on_a_page():
    kinds = {*descendants(Options), record("thinwire.methods.fedpm.Options"), *PARAMETERISATIONS.values()}
    assert {kind for kind in kinds if own_fields(kind)} <= {record(name) for _, name in tables("options")}


@pytest.mark.parametrize(("page", "ids"), tables("codecs"))
def test_a_table_of_codecs_is_that_of_the_code(page, ids):
    known = {name: shown.split() for name, _, shown, _ in catalogue.codecs()}
    listed = {code(row[0])[0]: code(row[1]) for row in rows(page, f"<!-- codecs: {ids} -->")}
    assert listed == {name: known[name] for name in ids.split()}


def test_every_codec_is_in_a_table():
    assert sorted(name for _, ids in tables("codecs") for name in ids.split()) == sorted(CODECS)


def test_every_server_optimiser_is_in_the_table():
    listed = {code(row[0])[0]: code(row[1]) for row in rows(DOCS / "methods" / "fedavg.md", "<!-- servers -->")}
    known = {name: [f"{field.name}={field.default}" for field in fields(kind)] for name, kind in server.SERVERS.items()}
    assert listed == known


def test_every_method_and_preset_is_in_the_table():
    listed = [name for row in rows(DOCS / "methods" / "index.md", "<!-- methods -->") for name in code(row[0])]
    assert sorted(listed) == sorted([*METHODS, *PRESETS])


def settings_of(model, prefix=""):
    """{dotted key: default as TOML, None where there is none} of an experiment; the fields of its parts not."""
    found = {}
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if sections:
            found |= settings_of(sections[0], f"{prefix}{name}.")
        elif get_origin(field.annotation) is not dict:
            default = None if field.is_required() else field.default
            found[prefix + name] = None if default is None else toml(default)
    return found


def test_every_setting_of_an_experiment_is_in_the_table():
    table = rows(DOCS / "reference.md", "<!-- settings -->")
    assert {code(row[0])[0]: (code(row[1]) or [None])[0] for row in table} == settings_of(Experiment)


# what pages point to --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_repository_that_a_page_names_are_there(page):
    for path in re.findall(r"`((?:experiments|examples|tests)/[\w./-]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_the_figures_are_those_of_the_data(tmp_path):
    pytest.importorskip("latex2mathml", reason="needs the extra [docs]")
    subprocess.run([sys.executable, str(DOCS / "figures.py"), str(tmp_path)], check=True, timeout=300)
    drawn = {path.name: _named(path) for path in tmp_path.iterdir()}
    assert drawn == {path.name: _named(path) for path in (DOCS / "figures").iterdir()}


def _named(picture):
    """The picture with its clipping paths numbered: their names are hashes of floats to the last bit."""
    text = picture.read_text()
    for number, name in enumerate(dict.fromkeys(re.findall(r'id="(p[0-9a-f]{10})"', text))):
        text = text.replace(name, f"clip-{number}")
    return text
