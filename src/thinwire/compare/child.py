"""A process that plays one run of a suite: `python -m thinwire.compare.child PIPE FOLDER`. Messages are JSON."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from thinwire.compare.playing import FAILURES, play_run
from thinwire.runtime.ledger import Round


def main(pipe: Connection, folder: Path) -> None:
    """Play the run that is asked for beside `folder`; say every round that is committed, or why it failed."""
    Thread(target=_end_with, args=(pipe,), daemon=True).start()

    def say(**message: Any) -> None:
        pipe.send_bytes(json.dumps(message).encode())

    def show(entry: Round, rounds: int) -> None:
        say(round=asdict(entry))

    try:
        play_run(folder, 1, show)
    except FAILURES as error:
        say(failed=str(error))


def _end_with(pipe: Connection) -> None:
    """End this process at once when the one at the other end is gone: nobody says anything else on that pipe."""
    with suppress(EOFError, OSError):
        pipe.recv_bytes()
    os._exit(1)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), Path(sys.argv[2]))
