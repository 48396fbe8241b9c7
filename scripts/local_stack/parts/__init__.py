"""The parts of the stack, one module each: how it is prepared, started, judged healthy and stopped."""
