"""Entry point of the command `cdc-reconciliation` and of `python -m reconciliation`."""

import os
import signal
import sys
import threading

_IN_MAIN_THREAD = threading.current_thread() is threading.main_thread()

# Modules take a second or two to load. Until then there is nothing to tidy up, and Ctrl-C must not show a traceback.
if _IN_MAIN_THREAD:
    _interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)

from reconciliation.command_line import app  # noqa: E402
from reconciliation.plain_errors import EXIT_INTERRUPTED  # noqa: E402

if _IN_MAIN_THREAD:
    signal.signal(signal.SIGINT, _interrupt)


def main() -> None:
    """Run the command that the arguments name."""
    try:
        app()
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:
            # What was under way is left in its threads, and one in native code aborts the process when Python ends it.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(EXIT_INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
