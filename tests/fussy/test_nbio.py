"""Pipes of processes: what section 4.5 of the documentation promises, with real programs."""

import doctest
import gzip
import io
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fussy import nbio, nbio_streams
from fussy.nbio import NBIOError, Pipe, ProcessError
from fussy.nbio import Process as P


@pytest.mark.parametrize("module", [nbio, nbio_streams])
def test_the_documented_examples_hold(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried and not failed


class Response:
    """What the document's first example uses of an HTTP response."""

    def iter_content(self) -> Iterator[bytes]:
        for number in range(1000):
            yield bytes([number % 256])


def test_a_bound_method_is_a_source() -> None:
    result = (Response().iter_content | P("gzip -c"))()
    assert result.startswith(b"\x1f\x8b")
    assert gzip.decompress(result) == b"".join(Response().iter_content())


@pytest.mark.parametrize("source", [
    "text", b"text", bytearray(b"text"), memoryview(b"text"), ["te", b"xt"], ("te", "xt"), {"te": 1, "xt": 2},
    lambda: "text", lambda: iter(["text"]), lambda: io.BytesIO(b"text"), io.BytesIO(b"text"), io.StringIO("text"),
    ["te", "", None, nbio.DID_NOTHING, b"xt"],
], ids=lambda source: type(source).__name__)
def test_sources(source: object) -> None:
    assert (source | P("cat"))() == b"text"


def test_no_source_is_an_empty_one() -> None:
    assert P("cat")() == b""
    assert ("" | P("cat"))() == b""
    assert ((lambda: None) | P("cat"))() == b""


def test_stdin_false_inherits_ours() -> None:
    code = "from fussy.nbio import Process as P; import sys; sys.stdout.buffer.write({}())"
    for pipe in ("P('cat', stdin=False)", "('-' | P('cat'))", "('-' | P('cat') | '')", "(P('cat') < '-')"):
        ran = P([sys.executable, "-c", code.format(pipe)])
        assert ("over" | ran)() == b"over"


def test_dash_writes_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    assert (P("echo one") | "-")() == b""
    assert (P("echo two") > "-")() == b""
    assert (["three\n"] | P("cat", by_line=True) | "-")() == b""
    assert capfd.readouterr().out == "one\ntwo\nthree"


def test_dash_writes_to_a_replaced_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    assert ("zwölf € 🙂" | P("cat") | "-")() == b""
    assert screen.getvalue() == "zwölf € 🙂"


def test_named_files(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("blue\nred\nblue\n")
    pipe = (P(["grep", "blue"]) < str(tmp_path / "in")) | P(["wc", "-l"])
    assert (pipe > tmp_path / "out")() == b""
    assert (tmp_path / "out").read_text().strip() == "2"


def test_open_files(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("skipped\nblue\nred\n")
    with open(tmp_path / "in", "rb") as source:
        source.readline()
        assert (source | P(["grep", "-n", "blue"]))() == b"1:blue\n"
    with open(tmp_path / "in") as text:
        text.readline()
        assert (text | P("cat"))() == b"blue\nred\n"
    with open(tmp_path / "out", "wb") as target:
        target.write(b"before ")
        assert (P("printf direct") | target)() == b""
        assert (P("printf ' lines'", by_line=True) | target)() == b""
        target.write(b" after")
    assert (tmp_path / "out").read_text() == "before direct lines after"


def test_files_whose_descriptor_shows_other_bytes(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.gz", "wb") as packed:
        assert ("shown" | P("cat") | packed)() == b""
    with gzip.open(tmp_path / "x.gz") as unpacked:
        assert (unpacked | P("cat"))() == b"shown"
    with tempfile.NamedTemporaryFile() as wrapped:
        assert ("w" | P("cat") | wrapped)() == b""
        wrapped.seek(0)
        assert (wrapped | P("cat"))() == b"w"


def test_sockets() -> None:
    one, two = socket.socketpair()
    with one, two:
        assert ("over a socket" | P("cat") | one)() == b""
        one.shutdown(socket.SHUT_WR)
        assert (two | P("cat"))() == b"over a socket"


def test_functions_see_each_block_and_pass_it_on() -> None:
    seen: list[bytes] = []
    assert ("abc" | P("cat") | seen.append | P("tr a-z A-Z") | seen.append)() == b"ABC"
    assert seen == [b"abc", b"ABC"]


def test_lists_are_filled() -> None:
    collected: list[bytes] = []
    assert Pipe(P("echo blue; echo red") | P("grep blue") | collected)() == b"blue\n"
    assert collected == [b"blue\n"]


def test_a_pipe_without_processes() -> None:
    seen: list[bytes] = []
    assert Pipe(["a", "b"], seen.append, "")() == b"ab"
    assert seen == [b"a", b"b"]
    assert Pipe()() == b""


def test_by_line() -> None:
    lines: list[bytes] = []
    assert list(P(r"printf 'one\n\ntwo\nend'", by_line=True)) == [b"one", b"", b"two", b"end"]
    assert (P(r"printf 'one\n\ntwo\nend'", by_line=True) | lines)() == b"onetwoend"
    assert lines == [b"one", b"", b"two", b"end"]
    assert (P(r"printf 'one\ntwo\n'", by_line=True) | P("cat"))() == b"onetwo"


def test_standard_error() -> None:
    both = "echo out; echo err >&2"
    assert P(both, stderr=-1)() == b"out\nerr\n"
    assert sorted(P(both, stderr=True)().split()) == [b"err", b"out"]
    assert (P(both, stderr=-1) | P("wc -l"))().strip() == b"2"
    assert (P(both, stderr=True) | P("cat >&2; echo '<'", stderr=True) | [])().count(b"\n") == 3


def test_what_is_not_captured_is_ours(capfd: pytest.CaptureFixture[str]) -> None:
    assert P("echo out; echo err >&2", stdout=False)() == b""
    assert (P("echo two", stdout=False) | P("cat"))() == b""
    assert capfd.readouterr() == ("out\ntwo\n", "err\n")


def test_named_arguments_go_to_popen(tmp_path: Path) -> None:
    assert P("pwd", cwd=tmp_path)().decode().strip() == str(tmp_path)
    assert P(["sh", "-c", "echo $X"], env={"X": "y", "PATH": os.environ["PATH"]})() == b"y\n"
    assert P(["echo $0", "name"], shell=True)() == b"name\n"
    assert P("echo x", process_group=0)() == b"x\n"


def test_exit_codes() -> None:
    with pytest.raises(ProcessError, match=r"cannot run Process\('echo some; exit 3'\): .*exit code 3 \(some\)") as got:
        P("echo some; exit 3")()
    assert (got.value.exitcode, got.value.output) == (3, b"some\n")
    assert isinstance(got.value.process, P)
    assert got.value.process.command == "echo some; exit 3"
    assert P("exit 3", good_exit=[3, 4])() == b""
    with pytest.raises(ProcessError):
        P("true", good_exit=[3])()
    with pytest.raises(ProcessError, match="SIGUSR1") as killed:
        P("kill -USR1 $$")()
    assert killed.value.exitcode == -10


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ProcessError, match=r"No such file.*no-such-program") as got:
        (P("sleep 100") | P(["no-such-program"]))()
    assert got.value.exitcode == 127
    with pytest.raises(ProcessError) as unfit:
        P(["/etc/passwd"])()
    assert unfit.value.exitcode == 126


def test_what_cannot_stand_in_a_pipe(tmp_path: Path) -> None:
    with pytest.raises(NBIOError, match="use >"):
        (P("cat") | "name")()
    with pytest.raises(NBIOError, match="start of a pipe"):
        (P("cat") | ("tu", "ple"))()
    with pytest.raises(NBIOError, match="end of a pipe"):
        ((P("cat") > tmp_path / "x") | P("cat"))()
    with pytest.raises(NBIOError, match="cannot pipe 5"):
        5 | P("cat")
    with pytest.raises(NBIOError, match=r"cannot read.*missing"):
        (P("cat") < str(tmp_path / "missing"))()
    with pytest.raises(TypeError, match="bytes or str"):
        ([1, 2] | P("cat"))()


def test_a_pipe_is_a_sequence_of_items() -> None:
    cat, wc = P("cat"), P("wc -c")
    pipe = cat | wc
    assert (len(pipe), pipe.first, pipe.last, pipe[1]) == (2, cat, wc, wc)
    longer = "abc" | pipe
    assert (len(longer), len(pipe)) == (3, 2)
    assert Pipe(pipe, longer[0])[2] is longer[0]
    pipe.append([])
    pipe.prepend("text")
    assert len(pipe) == 4
    assert pipe().strip() == b"4"
    assert pipe.get_component(cat) is cat
    joined = (P("echo abc") | P("cat")) | (P("cat") | P("tr a b"))
    assert (len(joined), joined()) == (4, b"bbc\n")


def test_a_pipe_runs_again_but_not_twice_at_once() -> None:
    pipe = P("echo x") | P("cat")
    assert pipe() == pipe() == b"x\n"
    first = iter(pipe)
    assert next(first) == b"x\n"
    with pytest.raises(NBIOError, match="running"):
        pipe()
    first.close()  # type: ignore[attr-defined]
    assert pipe() == b"x\n"


def test_the_single_process_can_be_driven() -> None:
    process = P("cat")
    assert b"".join(process.iter_write("in")) == b"in"
    assert process.check_exit() == 0
    assert list(P("echo x").iter_read()) == list(P("echo x")) == [b"x\n"]
    assert P("exit 1").check_exit() is None


def test_functions_for_streams(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(10_000))
    with open(source, "rb") as read, open(target, "wb") as written:
        sizes = nbio.writeiter(nbio.reader(read), written)
        assert read.closed and written.closed
    assert source.read_bytes() == target.read_bytes() and sum(sizes) == 10_000
    assert b"".join(nbio.reader(io.BytesIO(b"12345"), blocksize=2)) == b"12345"
    buffer = io.BytesIO()
    assert nbio.writer("ä", buffer) == [2] and nbio.writer("ä", buffer, encoding="latin1") == [1]
    assert buffer.getvalue() == b"\xc3\xa4\xe4"


def test_the_reader_never_waits() -> None:
    readable, writable = os.pipe()
    blocks = nbio.reader(readable)
    assert next(blocks) is nbio.DID_NOTHING
    assert nbio.writer(b"x", writable) == [1]
    assert next(blocks) == b"x"
    nbio.close(writable)
    assert list(blocks) == []
    with pytest.raises(OSError):
        os.fstat(readable)
    assert nbio.fileno(5) == 5 and nbio.fileno(sys.__stderr__) == 2
    nbio.close(sys.stdout)
    assert not sys.stdout.closed


def test_the_writer_waits_for_room() -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    with open(readable, "rb") as read:
        thread = threading.Thread(target=nbio.writeiter, args=[[bytes(100_000), None, "ende"], writable])
        thread.start()
        assert read.read() == bytes(100_000) + b"ende"
        thread.join()
