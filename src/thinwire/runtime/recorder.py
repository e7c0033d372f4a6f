"""What `--save-frames` keeps: the frames that crossed in the last committed round, and what reads them.

RUN/frames/round-R-down-from-V.tw: what clients that held version V were sent, `keyframe` in place of V for a keyframe.
RUN/frames/round-R-client-C-up.tw, -request.tw: what client C answered. RUN/frames/server-V.safetensors: the server's
states before the last two rounds. These never cross; they are what an update and a step are coded against.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from thinwire import frame as frames
from thinwire.errors import DecodeError
from thinwire.frame import NO_BASE
from thinwire.methods import Method
from thinwire.modelfile import save_bytes, sync_folder
from thinwire.runtime.client import Answer
from thinwire.runtime.pool import Pool, Task
from thinwire.runtime.state import record_like, record_to_bytes

FRAMES = "frames"
_OURS = re.compile(r"(round-\d+-.+\.tw|server-\d+\.safetensors)(\.tmp)?")


class Recorder:
    """A pool that does what the one behind it does, and remembers what crosses."""

    may_be_late: ClassVar[bool] = False

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder = pool, folder
        self.round = 0
        self.crossed: dict[str, bytes] = {}
        self.states: list[tuple[int, Any]] = []  # version and server state before each of the last two rounds

    def begin(self, sync: bytes, broadcasts: Sequence[bytes]) -> None:
        """Start a round."""
        for broadcast in broadcasts:
            frame = frames.read(broadcast)
            self.round = frame.round + 1
            base = "keyframe" if frame.base == NO_BASE else frame.base
            self.crossed[f"round-{self.round}-down-from-{base}.tw"] = broadcast
        self.pool.begin(sync, broadcasts)

    def answers(self, tasks: Sequence[Task], enough: int | None = None) -> Iterator[Answer]:
        """Answers in the order of the tasks."""
        for answer in self.pool.answers(tasks, enough):
            if answer.frame:
                sort = "request" if answer.status == "keyframe" else "up"
                self.crossed[f"round-{self.round}-client-{answer.client}-{sort}.tw"] = answer.frame
            yield answer

    def close(self) -> None:
        """End the workers."""
        self.pool.close()

    def played(self, version: int, before: Any, keep: bool) -> None:
        """A round is over that began with this version and state; if it is to be kept, its files replace older ones.

        Before it is committed, as the ledger's line: what a crash leaves half done is done again by the resumed run.
        """
        self.states = [*self.states[-1:], (version, before)]
        crossed, self.crossed = self.crossed, {}
        if keep:
            states = {_state_name(number): record_to_bytes(state) for number, state in self.states}
            self._replace(crossed | states, {_state_name(version - 1)})  # a resumed run finds it here

    def _replace(self, files: dict[str, bytes], others: set[str]) -> None:
        for name, data in files.items():
            save_bytes(data, self.folder / name)
        sync_folder(self.folder)
        for path in self.folder.iterdir():
            if path.name not in {*files, *others} and _OURS.fullmatch(path.name):
                path.unlink()


def read_state(folder: Path, method: Method, version: int) -> Any | None:
    """The server's state of a version, if it is kept here; DecodeError for a file that holds another one."""
    path = folder / _state_name(version)
    if not path.is_file():
        return None
    state = record_like(method.init(), path.read_bytes())
    if method.version(state) != version:
        raise DecodeError(f"{path.name}: a state of version {method.version(state)}")
    return state


def _state_name(version: int) -> str:
    return f"server-{version}.safetensors"
