"""What can go wrong while the stack is managed. Every message names the thing and the remedy; the CLI prints it as it
is.
"""


class StackError(Exception):
    """The command cannot go on. The message is for the person at the terminal."""


class NotReady(Exception):
    """A health check's answer: the part does not serve yet, and why."""
