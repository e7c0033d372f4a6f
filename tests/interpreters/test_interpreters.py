"""The tests of frames and bytes, played by every other Python that this machine has. They need no torch."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import play

NEEDED = ["numpy", "scipy", "numba", "bitarray", "safetensors", "pytest", "hypothesis"]
TESTS = ["tests/ground", "tests/golden", "tests/codecs/test_range_coder.py", "tests/codecs/test_mask.py",
         "tests/codecs/test_votes.py", "tests/codecs/test_entries.py"]  # fmt: skip
FOUND = play.others()


def test_the_classifiers_name_the_pythons_that_are_played():
    project = tomllib.loads((play.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: 3." in line]
    assert named == list(play.VERSIONS)
    assert project["requires-python"] == f">={play.VERSIONS[0]}"


@pytest.mark.slow
@pytest.mark.skipif(not FOUND, reason="this machine has no other Python that thinwire supports")
@pytest.mark.parametrize("version", FOUND)
def test_frames_and_bytes_by_another_python(version, tmp_path):
    try:
        python = play.installed(FOUND[version], tmp_path / "environment", *NEEDED)
    except subprocess.CalledProcessError as error:
        told = str(error.stderr).strip().splitlines()[-1:]
        if os.environ.get("CI") == "true":
            pytest.fail(f"Python {version} cannot install what constraints.txt pins: {told}")
        pytest.skip(f"no packages for Python {version}: {told}")
    words = [python, "-m", "pytest", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(words, cwd=play.ROOT, env=play.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "passed" in done.stdout
