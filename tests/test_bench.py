"""The measurements measure what they say: memory of whole pipelines, differences of trees, verdicts."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


def test_the_largest_process_of_a_pipeline_counts(tmp_path: Path) -> None:
    # in a process of its own: the peak of a child includes what its parent had when it was forked
    program = ("import os, pathlib, sys\n"
               "sys.path.insert(0, sys.argv[1])\n"
               "import measure\n"
               "usage = measure.run_script(sys.argv[2], dict(os.environ), pathlib.Path(sys.argv[3]))\n"
               "print(usage.memory, usage.seconds)\n")
    script = "true | (true; python3 -c 'x = bytes(b\"x\") * (200 << 20)' | cat) | cat"
    done = subprocess.run([sys.executable, "-c", program, BENCH, script, tmp_path / "log"], capture_output=True,
                          text=True, check=True, timeout=60)
    memory, seconds = map(float, done.stdout.split())
    assert 200 << 20 < memory < 300 << 20
    assert seconds > 0


def test_a_job_that_fails_tells_why(bench, tmp_path: Path) -> None:
    measure = bench("measure")
    with pytest.raises(measure.JobFailed, match="(?s)exit code 7.*no such luck"):
        measure.run_script("(echo no such luck >&2; exit 7) | cat", dict(os.environ), tmp_path / "log")


def test_trees_are_compared_by_content(bench, tmp_path: Path) -> None:
    trees = bench("trees")
    old, new = tmp_path / "firmware-1", tmp_path / "firmware-2"
    old.mkdir()
    for name in ("same", "touched", "changed", "moved", "gone"):
        (old / name).write_text(name)
    shutil.copytree(old, new, symlinks=True)
    os.utime(new / "touched", (1, 1))
    (new / "changed").write_text("CHANGED!")
    (new / "moved").rename(new / "elsewhere")
    (new / "gone").unlink()
    (new / "new").write_text("something new")
    (tmp_path / "versions.json").write_text('{"stand_ins": false}')
    found = trees.compare(tmp_path)
    assert (found.changed, found.changed_bytes, found.added, found.added_bytes) == (1, 8, 1, 13)
    assert (found.moved, found.mtime_only, found.gone) == (1, 1, 2)


def test_limits_are_judged_on_paired_ratios(bench) -> None:
    jobs, report, measure = bench("jobs"), bench("report"), bench("measure")
    first = jobs.Job("pack", "classic", "")
    second = jobs.Job("pack", "ours", "", time_limit=0.2, size_limit=1.1, memory_limit=1 << 20, time_goal=0.15)
    taken = {
        # the second round is slow for both: the ratio is not hurt by it
        first: [measure.Usage(10, 1, 0, 0, 1000), measure.Usage(40, 1, 0, 0, 1000), measure.Usage(10, 1, 0, 0, 1000)],
        second: [measure.Usage(2, 1, 9, 0, 1200), measure.Usage(8, 1, 9, 0, 1200), measure.Usage(3, 1, 9, 0, 1200)],
    }
    classic, ours = report.rows([first, second], taken)
    assert (classic.ratio, ours.ratio) == (1.0, 0.2)
    assert ours.missed == ("size 1.10 x",)
    assert report.verdict(ours) == "MISS size 1.10 x; pass time 0.20 x, memory 1 MiB; goal 0.15 x ahead"
    text = report.table([classic, ours], [report.Check("start", 80.0, "ms", 150)])
    assert "MISS size" in text
    assert "pass (at most 150 ms)" in text


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("dnsmasq") is None, reason="needs root and dnsmasq")
def test_installs_are_measured_on_routers_that_do_the_work(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    chutes = bench("chutes")
    monkeypatch.setattr(chutes, "COUNT", 3)
    monkeypatch.setattr(chutes, "ROUNDS", 2)
    first, last, ratio = chutes.measure()
    assert 0 < first < 60
    assert 0 < last < 60
    assert ratio > 0
    monkeypatch.setattr(chutes, "chute", lambda number: {"net": {"lan": {"type": "nonsense"}}})
    with pytest.raises(RuntimeError, match="a router has ended"):
        chutes.measure()


def test_a_daemon_s_memory_is_measured(bench) -> None:
    assert 5 < bench("daemon").memory() < bench("daemon").linked_memory() < 500
