"""`deepkit devices`."""

from __future__ import annotations

import argparse

DESCRIPTION = "List the devices that work here; of the others, say why they do not."
EXAMPLES = ("deepkit devices",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    from .. import backends

    chosen = backends.get("auto").name
    for name in backends.HOMES:
        reason = backends.why_not(name)
        state = "works" if reason is None else f"does not work: {reason}"
        state += " (what --device auto takes)" if name == chosen else ""
        advice = backends.get(name).advice if reason is None else None
        print(f"{name:10}{state}{f'; {advice}' if advice else ''}")
    return 0
