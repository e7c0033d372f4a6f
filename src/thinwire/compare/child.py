"""A process that plays one run of a suite: `python -m thinwire.compare.child PIPE FOLDER`. Messages are JSON."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any

from thinwire.compare.handing import End
from thinwire.compare.playing import FAILURES, play_run, reason
from thinwire.runtime.ledger import Round


def main(pipe: End, folder: Path) -> None:
    """Play the run that is asked for beside `folder`; say every round that is committed, or why it failed."""
    asked = Event()
    Thread(target=_heed, args=(pipe, asked), daemon=True).start()

    def say(**message: Any) -> None:
        pipe.send_bytes(json.dumps(message).encode())

    def show(entry: Round, rounds: int) -> None:
        say(round=asdict(entry))
        if asked.is_set():
            raise KeyboardInterrupt

    try:
        play_run(folder, 1, show)
    except FAILURES as error:
        say(failed=reason(error))
    except KeyboardInterrupt:
        pass


def _heed(pipe: End, asked: Event) -> None:
    """What is said on the pipe asks for an end after the round; when the one who says it is gone, end at once."""
    with suppress(EOFError, OSError):
        while pipe.recv_bytes():
            asked.set()
    os._exit(1)


if __name__ == "__main__":
    main(End(int(sys.argv[1])), Path(sys.argv[2]))
