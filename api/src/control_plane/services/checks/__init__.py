"""The checks of a preflight: each looks at one thing, changes nothing, and says in plain words what it found."""
