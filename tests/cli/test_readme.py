"""The README names the two commands; that all else in it works is a test of the documentation (tests/docs)."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_names_the_two_commands():
    first = re.search(r"```sh\n(.*?)```", README, flags=re.DOTALL)[1]
    assert {"make demo", "make test"} <= {line.split("  ")[0].strip() for line in first.splitlines()}
