"""The `mmkv` command: ask, caption, encode, find, info, rm and others, a file each.

Nothing heavy is imported until a command needs it, so that `mmkv --help` answers at once.
Results go to stdout; notes, warnings, progress and errors go to stderr. Exit codes: 0 done,
1 it could not be done, 2 the command line is wrong, 130 stopped with Ctrl-C, 141 nobody reads our
output any more.
"""

import os
import sys


def main() -> None:
    """Run the process's command line and exit.

    Raises:
        SystemExit: always, with the exit code.
    """
    open_closed_streams()
    try:
        from mmkv.cli.app import run

        code = run()
    except KeyboardInterrupt:  # before the command could begin
        sys.stderr.write("stopped\n")
        code = 130
    sys.exit(code)


def open_closed_streams() -> None:
    """Discard what goes to a stream that is closed (`>&-`), which Python shows as None.

    Nothing else that is opened later, such as a store, gets its number and what is printed to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
