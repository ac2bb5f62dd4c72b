"""What the network does to a download: it ends complete and verified, or with a word that says why not."""

import hashlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fussy.channel import Offer
from fussy.errors import NoSpace, TooSlow, Unreachable
from fussy.updating import downloads, sources
from fussy.updating.choose import Found
from fussy.updating.pace import Limits
from fussy.updating.web import Web

from .web import Answer, Server, serving, wait_for

CONTENT = hashlib.shake_256(b"content").digest(1_000_000)
FILE = Found("router/a.gpg", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(),
             Offer(kind="full", release="a", digest="0" * 64))
KIB64 = 1 << 16


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_PAUSE", 0.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    place = tmp_path / "channel" / FILE.place
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    with serving(tmp_path / "channel") as started:
        yield started


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "update").mkdir()
    return tmp_path / "update"


def limits(**settings: float) -> Limits:
    return Limits(**{"patience": 3.0, "deadline": time.monotonic() + 60, **settings})  # type: ignore[arg-type]


def fetch(place: Path, *urls: str, **settings: float) -> Path:
    route = sources.Route("none")
    return downloads.fetch(place, FILE, [sources.connect(url, limits(**settings), route) for url in urls])


def whole(place: Path, path: Path) -> None:
    assert path.read_bytes() == CONTENT
    assert list((place / "downloads").iterdir()) == [path]


def faulty(change: Callable[[Answer], Answer], *, times: int = 10**6) -> Callable[[str, Answer], Answer]:
    left = [times]

    def fault(path: str, answer: Answer) -> Answer:
        left[0] -= 1
        return change(answer) if left[0] >= 0 else answer

    return fault


def test_a_good_server_is_asked_once(server: Server, place: Path) -> None:
    whole(place, fetch(place, server.url))
    assert server.requests == [FILE.place]
    fetch(place, server.url)
    assert len(server.requests) == 1, "what is there already is not fetched again"


@pytest.mark.parametrize("says_length", [True, False])
def test_a_connection_that_breaks_at_every_64_kib(server: Server, place: Path, says_length: bool) -> None:
    def cut(answer: Answer) -> Answer:
        answer.cut = KIB64
        if not says_length:
            answer.headers["Content-Length"] = ""
        return answer

    server.fault = faulty(cut)
    whole(place, fetch(place, server.url))
    count = -(-len(CONTENT) // KIB64)
    assert server.ranges == [f"bytes={KIB64 * i}-" for i in range(1, count)]
    assert server.sent < len(CONTENT) * 1.01 + 1000 * count


def test_a_connection_that_brings_nothing_is_given_up(server: Server, place: Path) -> None:
    server.fault = faulty(lambda answer: Answer(answer.status, answer.body, answer.headers, cut=0))
    with pytest.raises(Unreachable, match="cannot reach a source"):
        fetch(place, server.url)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_an_error_of_the_server_that_passes(server: Server, place: Path, status: int) -> None:
    server.fault = faulty(lambda answer: Answer(status, b"sorry"), times=2)
    whole(place, fetch(place, server.url))


def test_an_error_that_stays_sends_to_the_next_mirror(server: Server, place: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "channel") as broken:
        broken.fault = faulty(lambda answer: Answer(503, b"sorry"))
        whole(place, fetch(place, broken.url, server.url))


def test_a_mirror_goes_on_where_another_stopped(server: Server, place: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "channel") as short:
        short.fault = faulty(lambda answer: Answer(answer.status, answer.body, answer.headers, cut=300_000), times=1)
        broken_later = faulty(lambda answer: Answer(500))
        first = short.fault
        short.fault = lambda path, answer: first(path, answer) if len(short.requests) == 1 else broken_later(path,
                                                                                                          answer)
        whole(place, fetch(place, short.url, server.url))
    assert server.ranges == ["bytes=300000-"]


def test_bytes_of_a_mirror_that_lied_do_not_stay(server: Server, place: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "channel", tmp_path / "other")
    (tmp_path / "other" / FILE.place).write_bytes(bytes(len(CONTENT)))
    with serving(tmp_path / "other") as liar:
        liar.fault = lambda path, answer: Answer(answer.status, answer.body, answer.headers, cut=300_000) \
            if len(liar.requests) == 1 else Answer(500)
        whole(place, fetch(place, liar.url, server.url))
    assert server.ranges == ["bytes=300000-"] and len(server.requests) == 2


def test_a_changed_file_starts_anew(server: Server, place: Path) -> None:
    """If-Range: the server says by its ETag that this is another state of the file."""
    server.fault = faulty(lambda answer: Answer(200, bytes(len(CONTENT)), {"ETag": '"old"'}, cut=400_000), times=1)
    whole(place, fetch(place, server.url))
    assert server.ranges == ["bytes=400000-"] and len(server.requests) == 2
    assert server.sent > len(CONTENT) + 400_000


def test_a_server_without_ranges(server: Server, place: Path) -> None:
    cut = faulty(lambda answer: Answer(200, CONTENT, {}, cut=500_000), times=1)

    def plain(path: str, answer: Answer) -> Answer:
        return cut(path, Answer(200, CONTENT))

    server.fault = plain
    whole(place, fetch(place, server.url))


@pytest.mark.parametrize("range_given", ["bytes 5-9/1000000", "nonsense", ""])
def test_another_part_than_was_asked_for(server: Server, place: Path, range_given: str) -> None:
    server.fault = lambda path, answer: Answer(206, b"12345", {"Content-Range": range_given}) \
        if len(server.requests) > 1 else Answer(200, CONTENT, {}, cut=500_000)
    with pytest.raises(Unreachable, match="another part"):
        fetch(place, server.url)


# --- redirects --------------------------------------------------------------------------------------------------------


def test_redirects_are_followed_a_few_times(server: Server, place: Path) -> None:
    def redirected(path: str, answer: Answer) -> Answer:
        hops = path.count("hop/")
        return answer if not hops and len(server.requests) > 1 else Answer(
            302, b"", {"Location": f"{server.url}/{'hop/' * (2 if not hops else hops - 1)}{FILE.place}"})

    server.fault = redirected
    whole(place, fetch(place, server.url))
    assert len(server.requests) == 4


def test_redirects_without_end(server: Server, place: Path) -> None:
    server.fault = lambda path, answer: Answer(301, b"", {"Location": f"/again/{len(server.requests)}"})
    with pytest.raises(Unreachable, match="redirects more than 5 times"):
        fetch(place, server.url)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x"])
def test_redirects_to_other_schemes(server: Server, place: Path, location: str) -> None:
    server.fault = lambda path, answer: Answer(302, b"", {"Location": location})
    with pytest.raises(Unreachable, match="only https"):
        fetch(place, server.url)


def test_never_from_https_to_http() -> None:
    web = Web("https://a.example", limits())
    assert web._follow("http://a.example/x", "https://b.example/y") == "https://b.example/y"
    with pytest.raises(Unreachable):
        web._follow("https://a.example/x", "http://a.example/x")


# --- portals, proxies, speed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [
    Answer(200, b"\r\n<!DOCTYPE html><title>Welcome to our hotel</title>"), Answer(511, b"log in"),
    Answer(302, b"", {"Location": "/portal"})])
def test_a_captive_portal(server: Server, place: Path, page: Answer) -> None:
    server.fault = lambda path, answer: Answer(200, b"<html>") if path == "portal" else page
    with pytest.raises(Unreachable, match="captive portal"):
        fetch(place, server.url)



def test_proxies(server: Server, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = "http://updates.invalid/channel"
    with serving(tmp_path) as proxy:
        source = sources.connect(asked, limits(), sources.Route(proxy.url))
        whole(place, downloads.fetch(place, FILE, [source]))
        assert proxy.requests == [f"channel/{FILE.place}"]
        downloads.forget(place)
        monkeypatch.setenv("http_proxy", proxy.url)
        whole(place, downloads.fetch(place, FILE, [sources.connect(asked, limits())]))
        assert len(proxy.requests) == 2
        downloads.forget(place)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        whole(place, downloads.fetch(place, FILE, [sources.connect(server.url, limits())]))
        assert len(proxy.requests) == 2
        for no_proxy in ("none", ""):
            monkeypatch.delenv("http_proxy", raising=False)
            with pytest.raises(Unreachable):
                downloads.fetch(place, Found("x", 1, "1" * 64, FILE.offer), [
                    sources.connect(asked, limits(), sources.Route(no_proxy))])


@pytest.mark.parametrize("way", ["server", "directory"])
def test_the_bandwidth_is_kept_to(server: Server, place: Path, tmp_path: Path, way: str) -> None:
    """Also where the source is a directory: it may be a share of the network."""
    begun = time.monotonic()
    whole(place, fetch(place, server.url if way == "server" else str(tmp_path / "channel"), bandwidth=700_000))
    assert time.monotonic() - begun > 1.2


def test_a_drip_ends_at_the_lowest_speed_and_goes_on_elsewhere(server: Server, place: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "channel") as slow:
        slow.fault = faulty(lambda answer: Answer(answer.status, answer.body, answer.headers, drip=0.005))
        whole(place, fetch(place, slow.url, server.url, patience=1.0))
    assert len(server.ranges) == 1, "what the slow one sent is kept"


def test_the_deadline_ends_it(server: Server, place: Path) -> None:
    server.fault = faulty(lambda answer: Answer(answer.status, answer.body, answer.headers, drip=0.005))
    with pytest.raises(TooSlow, match="over"):
        fetch(place, server.url, deadline=time.monotonic() + 1.0, lowest_speed=1)


def test_a_server_that_trickles_its_tls(place: Path) -> None:
    """Each byte comes in time; the handshake as a whole does not."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"\x16\x03\x03\x40\x00")
            while not done.wait(0.2):
                try:
                    connection.sendall(b"\x02")
                except OSError:
                    return

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    begun = time.monotonic()
    with pytest.raises((TooSlow, Unreachable)):
        fetch(place, f"https://127.0.0.1:{listener.getsockname()[1]}", patience=1.0)
    assert time.monotonic() - begun < 20
    done.set()
    listener.close()
    thread.join(10)


def test_nobody_there(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unreachable, match="Connection refused"):
        fetch(place, url)


# --- interrupted runs -------------------------------------------------------------------------------------------------

_FETCH = """
import sys, time
from pathlib import Path
from tests.fussy.update.test_http import fetch
fetch(Path(sys.argv[1]), sys.argv[2], bandwidth=1000000)
"""


def test_a_killed_download_goes_on(server: Server, place: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _FETCH, place, server.url])
    part = place / "downloads" / f"{FILE.sha256}.part"
    try:
        wait_for(lambda: part.exists() and part.stat().st_size > 200_000)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    size = part.stat().st_size
    whole(place, fetch(place, server.url))
    assert server.ranges == [f"bytes={size}-"]


def test_a_part_that_a_power_cut_spoilt_is_fetched_anew(server: Server, place: Path) -> None:
    (place / "downloads").mkdir()
    part = place / "downloads" / f"{FILE.sha256}.part"
    part.write_bytes(CONTENT[:100_000] + bytes(300_000))
    whole(place, fetch(place, server.url))
    downloads.forget(place)
    part.write_bytes(CONTENT + b"too long")
    whole(place, fetch(place, server.url))
    downloads.forget(place)
    (place / "downloads" / FILE.sha256).write_bytes(bytes(len(CONTENT)))
    whole(place, fetch(place, server.url))


def test_what_belongs_to_another_file_is_deleted(server: Server, place: Path) -> None:
    (place / "downloads").mkdir()
    for name in ("1" * 64, f"{'2' * 64}.part", f"{'2' * 64}.from"):
        (place / "downloads" / name).write_bytes(b"old")
    whole(place, fetch(place, server.url))


def test_what_does_not_fit_is_not_begun(server: Server, place: Path) -> None:
    huge = Found(FILE.path, 1 << 60, FILE.sha256, FILE.offer)
    with pytest.raises(NoSpace, match="are free"):
        downloads.fetch(place, huge, [sources.connect(server.url, limits(), sources.Route("none"))])
    assert server.requests == []


# --- directories ------------------------------------------------------------------------------------------------------


def test_a_directory_is_a_source(place: Path, tmp_path: Path, server: Server) -> None:
    whole(place, fetch(place, str(tmp_path / "channel")))
    assert server.requests == []


@pytest.mark.parametrize("what", ["fifo", "directory", "nothing", "too short"])
def test_a_directory_with_something_else_in_it(place: Path, tmp_path: Path, server: Server, what: str) -> None:
    odd = tmp_path / "usb" / FILE.place
    odd.parent.mkdir(parents=True)
    if what == "fifo":
        subprocess.run(["mkfifo", odd], check=True)
    elif what == "directory":
        odd.mkdir()
    elif what == "too short":
        odd.write_bytes(CONTENT[:-1])
    whole(place, fetch(place, str(tmp_path / "usb"), server.url))
