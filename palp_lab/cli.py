"""The command `palp-lab <verb> [overrides]`. Imports nothing heavy: help must be instant."""

from __future__ import annotations

import os
import sys

from palp_lab import cli_help
from palp_lab.cli_errors import nearest

HELP = {"-h", "--help", "help"}


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb, and ends quietly where what it prints is cut off (`palp-lab --help | head`)."""
    try:
        status = answer(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def answer(arguments: list[str] | None = None) -> int:
    """Runs one verb. Returns the exit status: 0 done, 1 something failed, 2 the command line or an input is wrong."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words or words[0] in HELP:
        print(cli_help.overview())
        return 0
    if words[0] == "--version":
        from palp_lab import __version__

        print(__version__)
        return 0
    verb, rest = words[0], words[1:]
    if verb not in cli_help.VERBS:
        print(f"palp-lab: {verb}: no such verb{nearest(verb, cli_help.VERBS)}", file=sys.stderr)
        return 2
    if HELP & set(rest):
        print(cli_help.of_verb(verb, rest))
        return 0
    from palp_lab.launch import launch

    if (place := os.environ.get("PALP_LAB_OUTPUT")) is not None:
        os.environ["PALP_LAB_OUTPUT"] = os.path.expanduser(place) or "outputs"
    return launch(verb, rest)
