"""Turns measurements into a table with medians, ratios and verdicts, and into JSON."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from jobs import Job
from measure import Usage


@dataclass(frozen=True)
class Row:
    """The medians of one job; a ratio is the median of the ratios within each round, so a slow minute hurts nobody."""

    kind: str
    name: str
    seconds: float
    ratio: float
    cpu: float
    memory: int
    written: int
    size: int
    kept: tuple[str, ...]
    missed: tuple[str, ...]
    goal: str


@dataclass(frozen=True)
class Check:
    """A single number with its limit: at most LIMIT, or at least when ``more`` is better."""

    name: str
    value: float
    unit: str
    limit: float
    more: bool = False

    @property
    def reached(self) -> bool:
        return self.value >= self.limit if self.more else self.value <= self.limit


def limits(job: Job, ratio: float, size_ratio: float, written: int, memory: int) -> Iterator[tuple[str, bool]]:
    """Yield each limit of a job as text, and whether it was kept."""
    if job.time_limit is not None:
        yield f"time {job.time_limit:.2f} x", ratio <= job.time_limit
    if job.size_limit is not None:
        yield f"size {job.size_limit:.2f} x", size_ratio <= job.size_limit
    if job.written_limit is not None:
        yield f"written {job.written_limit / 1e6:.0f} MB", written <= job.written_limit
    if job.memory_limit is not None:
        yield f"memory {job.memory_limit >> 20} MiB", memory <= job.memory_limit


def goal(job: Job, ratio: float) -> str:
    """Return what we are after beyond the limits, as text."""
    if job.time_goal is None:
        return ""
    return f"goal {job.time_goal:.2f} x {'reached' if ratio <= job.time_goal else 'ahead'}"


def rows(jobs: list[Job], taken: dict[Job, list[Usage]]) -> list[Row]:
    """Make a row of each job that was measured; the first one of a kind is 1.00."""
    made = []
    for job in jobs:
        if job not in taken:
            continue
        mine = taken[job]
        first = taken[next(other for other in jobs if other.kind == job.kind)]
        ratio = median(own.seconds / base.seconds for own, base in zip(mine, first, strict=True))
        size, written = median(u.size for u in mine), median(u.written for u in mine)
        memory = max(u.memory for u in mine)
        size_ratio = size / first[0].size if first[0].size else 0.0
        kept = list(limits(job, ratio, size_ratio, int(written), memory))
        made.append(Row(job.kind, job.name, median(u.seconds for u in mine), ratio, median(u.cpu for u in mine), memory,
                        int(written), int(size), tuple(text for text, ok in kept if ok),
                        tuple(text for text, ok in kept if not ok), goal(job, ratio)))
    return made


def verdict(row: Row) -> str:
    missed = f"MISS {', '.join(row.missed)}" if row.missed else ""
    kept = f"pass {', '.join(row.kept)}" if row.kept else ""
    return "; ".join(part for part in (missed, kept, row.goal) if part)


def table(found: list[Row], checks: list[Check]) -> str:
    """Return what the terminal shows."""
    lines = []
    kind = ""
    for row in found:
        if row.kind != kind:
            kind = row.kind
            lines += ["", f"{kind:<38} {'time':>8} {'ratio':>6} {'cpu':>8} {'memory':>9} {'written':>9} {'bundle':>9}"]
        size = f"{row.size / 1e6:6.1f} MB" if row.size else ""
        line = (f"  {row.name:<36} {row.seconds:6.2f} s {row.ratio:6.3f} {row.cpu:6.2f} s "
                f"{row.memory / 2**20:5.0f} MiB {row.written / 1e6:6.1f} MB {size:>9}  {verdict(row)}")
        lines.append(line.rstrip())
    lines.append("")
    for check in checks:
        sign = "at least" if check.more else "at most"
        lines.append(f"  {check.name:<36} {check.value:8.1f} {check.unit}  "
                     f"{'pass' if check.reached else 'MISS'} ({sign} {check.limit:g} {check.unit})")
    return "\n".join(lines)


def as_json(found: list[Row], checks: list[Check], taken: dict[Job, list[Usage]]) -> dict[str, Any]:
    """Return the same, with every single run, ready for :func:`json.dumps`."""
    return {
        "rows": [asdict(row) for row in found],
        "checks": [asdict(check) | {"reached": check.reached} for check in checks],
        "runs": [{"kind": job.kind, "name": job.name, "runs": [asdict(usage) for usage in runs]}
                 for job, runs in taken.items()],
    }
