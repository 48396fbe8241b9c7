"""Look at every scope, or (`--large`) at the large ones; print how many states there were, or the counterexample."""

import sys
import time

from commit_protocol.explorer import explore
from commit_protocol.scopes import LARGE, SCOPES

for name, model in (LARGE if "--large" in sys.argv[1:] else SCOPES).items():
    started = time.process_time()
    found = explore(model)
    seconds = time.process_time() - started
    print(f"{name}: {found.states:,} states, {found.transitions:,} transitions, {seconds:.1f} CPU s", flush=True)
