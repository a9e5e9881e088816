"""Starts a server that can not outlive the tests: `python leash.py PARENT_PID COMMAND...`.

The process asks Linux to kill it when its parent goes, then becomes the command. So a server dies even where pytest
itself is killed with -9. (Where there is no prctl, only an orderly end stops the server.)
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it went before we asked
            sys.exit("the parent is gone")
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
