"""Shows how far long work is: a bar on a terminal, nothing elsewhere (cron, pipes, logs)."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function that takes (bytes done, bytes in all) and draws a bar on stderr; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, update_min_steps=1) as shown:
        drawn = 0.0

        def show(done: int, total: int) -> None:
            nonlocal drawn
            # a draw costs more than a small file
            if done >= total or time.monotonic() - drawn > 0.1:
                drawn = time.monotonic()
                shown.length = max(total, 1)
                shown.update(done - shown.pos)

        yield show
