"""Entry point of the command `cdc-reconciliation` and of `python -m reconciliation`."""

import signal
import threading

_IN_MAIN_THREAD = threading.current_thread() is threading.main_thread()

# Modules take a second or two to load. Until then there is nothing to tidy up, and Ctrl-C must not show a traceback.
if _IN_MAIN_THREAD:
    _interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)

from reconciliation.command_line import app  # noqa: E402

if _IN_MAIN_THREAD:
    signal.signal(signal.SIGINT, _interrupt)


def main() -> None:
    """Run the command that the arguments name."""
    app()


if __name__ == "__main__":
    main()
