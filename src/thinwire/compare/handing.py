"""One end of a pipe for a child process that is no copy of this one: it is told the number of what it inherits."""

from __future__ import annotations

import sys
from typing import Any

if sys.platform == "win32":
    import os
    from multiprocessing.connection import PipeConnection as End
    from subprocess import CREATE_NEW_PROCESS_GROUP, STARTUPINFO

    def inheriting(number: int) -> dict[str, Any]:
        """Options of Popen: the child inherits what has this number, and Ctrl-C is not for the child."""
        os.set_handle_inheritable(number, True)
        startup = STARTUPINFO(lpAttributeList={"handle_list": [number]})
        return {"startupinfo": startup, "creationflags": CREATE_NEW_PROCESS_GROUP}
else:
    from multiprocessing.connection import Connection as End

    def inheriting(number: int) -> dict[str, Any]:
        """Options of Popen: the child inherits what has this number, and Ctrl-C is not for the child."""
        return {"pass_fds": [number], "start_new_session": True}


__all__ = ["End", "inheriting"]
