"""Start, stop and look at the embedded stack: `python scripts/stack.py up`. `make help` lists the everyday commands."""

import signal

# While modules load there is nothing to tidy up, and a traceback out of some library helps nobody.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from local_stack.cli import app  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)

if __name__ == "__main__":
    app()
