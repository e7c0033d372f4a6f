"""Code blocks of a Markdown page, and playing them as a reader would: in order, in one empty directory.

A block that cannot be played has `<!-- not run: reason -->` before it. One whose first line is `# name.py` or
`# name.toml` is a file of that name. `thinwire` commands and Python run in this process, which saves torch's start.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from thinwire import cli
from thinwire.codecs import CODECS
from thinwire.methods import METHODS

BLOCK = re.compile(r"(?:^<!-- not run:(?P<reason>[^>]*?)-->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
NAME = re.compile(r"# (\w+\.(?:py|toml))\n")


@dataclass(frozen=True)
class Block:
    """One fenced block; `reason`: why it is not played, None if it is."""

    language: str
    text: str
    reason: str | None

    @property
    def file(self):
        """The name of the file that it is, None for commands."""
        found = NAME.match(self.text)
        return found[1] if found else None

    @property
    def commands(self):
        """Shell commands, continued lines joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#"]


def blocks(page):
    """All blocks of a page, in order."""
    return [Block(found["language"], found["text"], _reason(found)) for found in BLOCK.finditer(page.read_text())]


def _reason(found):
    return None if found["reason"] is None else found["reason"].strip()


def play(page, folder, monkeypatch):
    """Play a page in a folder; every directory or file that a command names with --out or -o must be there then."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    known = [(table, dict(table)) for table in (CODECS, METHODS)]
    try:
        for block in blocks(page):
            if block.reason is None:
                _play(block, folder, monkeypatch)
    finally:
        _forget(folder, known)


def _play(block, folder, monkeypatch):
    if block.file:
        (folder / block.file).write_text(block.text)
    elif block.language == "python":
        script = folder / "block.py"
        script.write_text(block.text)
        runpy.run_path(str(script), run_name="__main__")
    elif block.language == "sh":
        for command in block.commands:
            _command(command, folder, monkeypatch)


def _command(command, folder, monkeypatch):
    words = shlex.split(command, comments=True)
    if Path(words[0]).name != "thinwire":
        subprocess.run(["bash", "-euc", command], cwd=folder, check=True, timeout=300)
        return
    monkeypatch.setattr(sys, "argv", ["thinwire", *words[1:]])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code, command
    for option, value in pairwise(words):
        assert option not in ("--out", "-o") or Path(value).exists(), command


def _forget(folder, known):
    """Take out of this process what the page's own modules have put there."""
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or os.sep).is_relative_to(folder):
            del sys.modules[name]
    for table, before in known:
        table.clear()
        table.update(before)
