"""Other Pythons of this machine: `python tests/interpreters/play.py` installs thinwire for each and plays runs by it.

It compares the model of a run with that of the Python that plays this. An installation with torch takes minutes and
gigabytes; the tests only install what the codecs need.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")  # those of the classifiers in pyproject.toml
TESTS = ["tests/ground", "tests/golden", "tests/runtime/test_run_determinism.py", "tests/runtime/test_run_workers.py"]
RUN = """
import sys
import thinwire as tw

if __name__ == "__main__":
    print(tw.run("fedavg", data="digits", model="mlp", clients=4, rounds=2, lr=0.1, uplink="stc", workers=2, seed=0,
                 device="cpu", out=sys.argv[1]).out)
"""


def others() -> dict[str, Path]:
    """Pythons that thinwire supports, one for each version that is not the one that plays this."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    own, found = f"{sys.version_info.major}.{sys.version_info.minor}", dict[str, Path]()
    for version in VERSIONS:
        places = [*pyenv.glob(f"{version}.*/bin/python"), *(folder / f"python{version}" for folder in folders)]
        working = [place for place in places if place.exists() and _version(place) == version]
        if working and version != own:
            found[version] = working[0]
    return found


def _version(python: Path) -> str:
    """What a Python says that it is; nothing where it does not run."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


def installed(python: Path, folder: Path, *what: str) -> Path:
    """An environment with packages as constraints.txt has them. -> its Python. CalledProcessError where pip fails."""
    subprocess.run([python, "-m", "venv", folder], check=True, capture_output=True)
    own = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    words = [own, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "-c", ROOT / "constraints.txt", *what]
    subprocess.run(words, check=True, capture_output=True, text=True)
    return own


def environment() -> dict[str, str]:
    """Where the Pythons find the source, whatever is installed."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}


def model(python: str | Path, folder: Path) -> str:
    """Digest of the model of a run."""
    folder.mkdir()
    (folder / "script.py").write_text(RUN, encoding="utf-8")
    words = [python, folder / "script.py", folder / "run"]
    subprocess.run(words, check=True, env=environment(), stdout=subprocess.DEVNULL)
    return sha256((folder / "run" / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """All of them; ends with the first failure."""
    found = others()
    print(f"here: {sys.version.split()[0]}; others: {', '.join(found) or 'none on this machine'}")
    with tempfile.TemporaryDirectory() as folder:
        here = model(sys.executable, Path(folder) / "here")
        for version, python in found.items():
            place = Path(folder) / version
            own = installed(python, place, "-e", str(ROOT), "pytest", "pytest-xdist", "hypothesis")
            subprocess.run([own, "-m", "pytest", *TESTS], check=True, cwd=ROOT, env=environment())
            there = model(own, place / "model")
            print(f"{version}: the model is {'the same' if here == there else 'ANOTHER'}")
            if here != there:
                raise SystemExit(1)


if __name__ == "__main__":
    main()
