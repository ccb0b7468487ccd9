"""One module a command: its `main` is the command line."""
