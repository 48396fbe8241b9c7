"""Start, stop and look at the embedded stack: `python scripts/stack.py up`. `make help` lists the everyday commands."""

from local_stack.cli import app

if __name__ == "__main__":
    app()
