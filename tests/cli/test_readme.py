"""What the README tells a new user to type works, in the order in which it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
THINWIRE = f"{sys.executable} -c 'from thinwire.cli import main; main()'"


def test_the_readme_names_the_two_commands():
    assert {"make demo", "make test"} <= {line.split("  ")[0].strip() for line in BLOCKS[0][1].splitlines()}


@pytest.mark.slow
def test_everything_else_runs_from_top_to_bottom(tmp_path):
    for language, text in BLOCKS[1:]:
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            path = tmp_path / (name[1] if name else "block.py")
            path.write_text(text)
            if not name:
                subprocess.run([sys.executable, str(path)], cwd=tmp_path, check=True, timeout=300)
        else:
            script = text.replace(".venv/bin/thinwire", THINWIRE)
            subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=300)
    for run in ("first", "floor", "python", "mine"):
        assert (tmp_path / "runs" / run / "report.html").is_file()
