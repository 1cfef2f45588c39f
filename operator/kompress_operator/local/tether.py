"""What a launcher starts as: it ties itself to `kompress run` and then becomes the launcher.

Two ties. A lock on the file `alive`, taken by the parent and inherited, is held for as long as the launcher lives: whoever comes
later can tell, without trusting a process id that may have been given to someone else. And on Linux the kernel sends SIGTERM
when the parent dies, even by kill -9, so that nothing trains on unattended. Run by path, as it must start fast.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
INTERRUPTED = 75


def main(descriptor: str, parent: str, *command: str) -> None:
    """Does not return."""
    os.ftruncate(int(descriptor), 0)
    os.write(int(descriptor), str(os.getpid()).encode())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit(INTERRUPTED)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
