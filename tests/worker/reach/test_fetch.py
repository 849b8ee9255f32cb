"""Downloads go to allowed addresses only, stay within their bounds, and fail in ways that say what to do."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from shared.errors import ClaimLost, TaskFailure, TransientFailure
from worker.reach.addresses import AllowedHosts, is_public, resolve
from worker.reach.fetch import FetchLimits, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

BODY = b"a,b\n" + b"1,2\n" * 1_000
LIMITS = FetchLimits(max_bytes=1_000_000, timeout_s=20, idle_timeout_s=5, max_redirects=3)
LOCAL = AllowedHosts.of(["127.0.0.0/8"])


class Site(http.server.BaseHTTPRequestHandler):
    """Answers by path: /status/503, /redirect?to=URL and so on; notes the headers it got."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        type(self).seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        name, _, argument = self.path.strip("/").partition("/")
        getattr(self, f"send_{name}")(argument)

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for header, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, _: str) -> None:
        self.reply(200, BODY, Content_Type="text/csv; charset=utf-8")

    def send_status(self, argument: str) -> None:
        self.reply(int(argument))

    def send_busy(self, argument: str) -> None:
        self.reply(503, Retry_After=argument.replace("_", " "))

    def send_redirect(self, target: str) -> None:
        self.reply(302, Location=target.replace("|", "/"))

    def send_short(self, _: str) -> None:
        self.reply(200, b"half", Content_Length="1000")
        self.close_connection = True

    def send_endless(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"x" * 65_536)
        except OSError:
            return

    def send_drip(self, where: str) -> None:
        """Send a byte now and then, in the head or in the body, until the other side goes."""
        self.close_connection = True
        start = b"HTTP/1.1 200 OK\r\nX-A: " if where == "head" else b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
        try:
            self.wfile.write(start)
            while not self.server.stopping.wait(0.05):  # type: ignore[attr-defined]  # set by the fixture
                self.wfile.write(b"x")
        except OSError:
            return

    def send_odd(self, _: str) -> None:
        self.reply(200, b"zz", Content_Encoding="br")


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[tuple[str, dict[str, str]]]]]]:
    """Return a function that starts a site and returns its port's URL and what it has seen."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(context: ssl.SSLContext | None = None) -> tuple[str, list[tuple[str, dict[str, str]]]]:
        site = type("OneSite", (Site,), {"seen": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), site)
        server.stopping = threading.Event()  # type: ignore[attr-defined]  # read by send_drip
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}", site.seen  # type: ignore[attr-defined]  # made above

    yield start
    for server in servers:
        server.stopping.set()  # type: ignore[attr-defined]  # see above
        server.shutdown()
        server.server_close()


def get(
    url: str,
    target: Path,
    *,
    allowed: AllowedHosts = LOCAL,
    limits: FetchLimits = LIMITS,
    headers_for: Callable[[str], Mapping[str, str]] = lambda _: {},
    on_progress: Callable[[int, int | None], None] = lambda *_: None,
) -> Any:
    return fetch(url, target, allowed=allowed, limits=limits, headers_for=headers_for, on_progress=on_progress)


def test_a_file_is_streamed_with_progress(serve: Any, tmp_path: Path) -> None:
    """The bytes arrive as they are; progress counts bytes of the declared total."""
    url, _ = serve()
    reports: list[tuple[int, int | None]] = []
    fetched = get(f"{url}/file/sales%20a.csv?x=1", tmp_path / "f", on_progress=lambda *now: reports.append(now))
    assert (tmp_path / "f").read_bytes() == BODY
    assert (len(BODY), "sales a.csv", "text/csv") == (fetched.size_bytes, fetched.file_name, fetched.media_type)
    assert reports[-1] == (len(BODY), len(BODY))


INTERNAL = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "0.0.0.0", "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "fec0::1",  # noqa: S104 - one to refuse
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2002:808:808::",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:0:808:808::1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", INTERNAL)
def test_internal_addresses_are_not_public(address: str) -> None:
    """Loopback, private, link-local, carrier-grade, multicast, reserved, and IPv4 hidden in IPv6."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    """The public internet may be reached without being named."""
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"]
)
def test_an_internal_host_is_refused_however_it_is_written(host: str, tmp_path: Path) -> None:
    """Nobody is asked, and the failure cannot pass by itself."""
    with pytest.raises(TaskFailure) as raised:
        get(f"http://{host}:9/x", tmp_path / "f", allowed=AllowedHosts.of([]))
    assert (raised.value.code, raised.value.retryable) == ("address_refused", False)


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "expected"),
    [
        ("files.internal", "files.internal", "10.0.0.5", 80, True),
        ("Files.Internal", "files.internal.", "10.0.0.5", 80, True),
        ("files.internal:8080", "files.internal", "10.0.0.5", 80, False),
        ("files.internal", "other.internal", "10.0.0.5", 80, False),
        ("10.0.0.0/8", "other.internal", "10.0.0.5", 80, True),
        ("10.0.0.5:81", "x", "10.0.0.5", 80, False),
        ("10.0.0.5:80", "x", "::ffff:10.0.0.5", 80, True),
        ("[::1]:80", "x", "::1", 80, True),
        ("::1", "x", "::1", 9, True),
    ],
)
def test_an_operator_allows_by_name_address_or_network(
    entry: str, host: str, address: str, port: int, *, expected: bool
) -> None:
    """Each entry may be bound to a port."""
    assert expected == AllowedHosts.of([entry]).allows(host, ipaddress.ip_address(address), port)


@pytest.mark.parametrize("entry", ["", "300.1.1.1", "10.0.0.0/33", "http://x", "a b", "-x"])
def test_a_wrong_entry_is_named(entry: str) -> None:
    """A mistyped allow-list stops the worker at its start."""
    with pytest.raises(ValueError, match="not a host name"):
        AllowedHosts.of([entry])


def answers(*addresses: str) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]


def test_one_internal_answer_spoils_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a public and an internal address is refused."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers("8.8.8.8", "10.0.0.1"))
    with pytest.raises(TaskFailure, match="internal address"):
        resolve("mixed.example", 80, AllowedHosts.of([]))


def test_the_name_is_resolved_once(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the checked answer: a name server that changes its mind has no effect."""
    url, seen = serve()
    port = url.rsplit(":", 1)[1]
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *args: Any, **options: Any) -> Any:
        if host != "rebind.example":
            return real(host, *args, **options)
        asked.append(host)
        return answers("127.0.0.1") if len(asked) == 1 else answers("127.0.0.2")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    get(f"http://rebind.example:{port}/file/x", tmp_path / "f", allowed=AllowedHosts.of(["127.0.0.1"]))
    assert asked == ["rebind.example"]
    assert seen[0][1]["host"] == f"rebind.example:{port}"


def test_a_redirect_is_checked_again(serve: Any, tmp_path: Path) -> None:
    """A public site cannot send a worker to an internal address, to a file or in circles."""
    url, _ = serve()
    port = int(url.rsplit(":", 1)[1])
    only_this = AllowedHosts.of([f"127.0.0.1:{port}"])
    with pytest.raises(TaskFailure, match="internal address"):
        get(f"{url}/redirect/http:||127.0.0.2:{port}|file|x", tmp_path / "f", allowed=only_this)
    for target in ("file:|||etc|passwd", f"{url.replace('/', '|')}|redirect||redirect|", "gopher:||127.0.0.1|"):
        with pytest.raises(TaskFailure) as raised:
            get(f"{url}/redirect/{target}", tmp_path / "f", allowed=only_this)
        assert raised.value.code in {"source_broken", "source_http_302"}


def test_too_many_redirects(serve: Any, tmp_path: Path) -> None:
    """A circle ends after the allowed number."""
    url, seen = serve()
    Site.send_loop = lambda self, _: self.reply(302, Location="/loop/x")  # type: ignore[attr-defined]  # for this test
    with pytest.raises(TaskFailure, match="redirects too often"):
        get(f"{url}/loop/x", tmp_path / "f")
    assert len(seen) == 1 + LIMITS.max_redirects


def test_secret_headers_stay_with_their_host(serve: Any, tmp_path: Path) -> None:
    """After a redirect to another origin the connection's headers are gone."""
    first, first_seen = serve()
    second, second_seen = serve()
    secret = {"X-Api-Key": "hush"}
    get(
        f"{first}/redirect/{second.replace('/', '|')}|file|x",
        tmp_path / "f",
        headers_for=lambda url: secret if url.startswith(first) else {},
    )
    assert first_seen[0][1]["x-api-key"] == "hush"
    assert "x-api-key" not in second_seen[0][1]
    assert (tmp_path / "f").read_bytes() == BODY


def test_proxies_of_the_environment_are_ignored(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect for us, past the check."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    url, _ = serve()
    assert len(BODY) == get(f"{url}/file/x", tmp_path / "f").size_bytes


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_transient_statuses(serve: Any, tmp_path: Path, status: int) -> None:
    """They are tried again."""
    with pytest.raises(TransientFailure) as raised:
        get(f"{serve()[0]}/status/{status}", tmp_path / "f")
    assert f"source_http_{status}" == raised.value.code


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204])
def test_statuses_that_cannot(serve: Any, tmp_path: Path, status: int) -> None:
    """They end the job with a remedy."""
    with pytest.raises(TaskFailure) as raised:
        get(f"{serve()[0]}/status/{status}", tmp_path / "f")
    assert (f"source_http_{status}", False) == (raised.value.code, raised.value.retryable)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("value", "low", "high"), [("7", 7, 7), ("DATE", 50, 61), ("soon", None, None), ("9" * 20, 3600, 3600)]
)
def test_retry_after_is_honoured(serve: Any, tmp_path: Path, value: str, low: float | None, high: float | None) -> None:
    """Seconds and dates are read, up to an hour; anything else is ignored."""
    due_at = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with pytest.raises(TransientFailure) as raised:
        get(f"{serve()[0]}/busy/{(due_at if value == 'DATE' else value).replace(' ', '_')}", tmp_path / "f")
    wait_s = raised.value.retry_after_s
    assert wait_s is None if low is None or high is None else low <= (wait_s or 0) <= high


def test_a_short_read_is_transient(serve: Any, tmp_path: Path) -> None:
    """A connection cut before Content-Length is not a success."""
    with pytest.raises(TransientFailure) as raised:
        get(f"{serve()[0]}/short/x", tmp_path / "f")
    assert raised.value.code == "source_unreachable"


def test_a_refused_connection_and_an_unknown_host_are_transient(tmp_path: Path) -> None:
    """Both are tried again."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransientFailure) as refused:
            get(f"http://127.0.0.1:{unused.getsockname()[1]}/x", tmp_path / "f")
    assert refused.value.code == "source_unreachable"
    with pytest.raises(TransientFailure) as unknown:
        get("http://no-such-host.invalid/x", tmp_path / "f")
    assert unknown.value.code == "host_unresolved"


@pytest.mark.parametrize("path", ["", "/redirect/"])
def test_a_host_that_idna_does_not_know_is_refused(serve: Any, tmp_path: Path, path: str) -> None:
    """It is a wrong URL, whether the client or a redirect names it."""
    url = f"{serve()[0]}{path}http:||xn--.com|" if path else "http://xn--.com/"
    with pytest.raises(TaskFailure) as raised:
        get(url, tmp_path / "f")
    assert (raised.value.code, raised.value.retryable) == ("source_invalid", False)


def test_bytes_are_capped(serve: Any, tmp_path: Path) -> None:
    """A declared size beyond the limit is refused at once, an undeclared one when it gets there."""
    url, _ = serve()
    small = FetchLimits(max_bytes=1_000, timeout_s=20, idle_timeout_s=5, max_redirects=0)
    for number, path in enumerate(("file/x", "endless/x")):
        with pytest.raises(TaskFailure) as raised:
            get(f"{url}/{path}", tmp_path / str(number), limits=small)
        assert raised.value.code == "source_too_large"


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_dripping_server_meets_the_deadline(serve: Any, tmp_path: Path, where: str) -> None:
    """A server that is never silent for long is cut off by the total time, also in its headers."""
    hasty = FetchLimits(max_bytes=10_000, timeout_s=0.6, idle_timeout_s=5, max_redirects=0)
    started = time.monotonic()
    with pytest.raises(TransientFailure) as raised:
        get(f"{serve()[0]}/drip/{where}", tmp_path / "f", limits=hasty)
    assert raised.value.code == "source_timeout"
    assert time.monotonic() - started < 30


def test_an_encoding_that_was_not_asked_for_is_refused(serve: Any, tmp_path: Path) -> None:
    """Brotli would be stored as if it were the file."""
    with pytest.raises(TaskFailure) as raised:
        get(f"{serve()[0]}/odd/x", tmp_path / "f")
    assert raised.value.code == "source_broken"


def test_what_progress_raises_passes_through(serve: Any, tmp_path: Path) -> None:
    """A lost claim stops the download as what it is."""

    def lost(*_: Any) -> None:
        raise ClaimLost("another owner")

    with pytest.raises(ClaimLost):
        get(f"{serve()[0]}/file/x", tmp_path / "f", on_progress=lost)


def test_tls_is_verified_for_the_name(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address, the certificate must be the name's, and a stranger's is not transient."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    names = ["-subj", "/CN=files.example", "-addext", "subjectAltName=DNS:files.example"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    url, _ = serve(context)
    port = url.rsplit(":", 1)[1]
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **options: real("127.0.0.1", *rest, **options))
    with pytest.raises(TaskFailure) as raised:
        get(f"https://files.example:{port}/file/x", tmp_path / "a")
    assert (raised.value.code, raised.value.retryable) == ("source_tls_invalid", False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert len(BODY) == get(f"https://files.example:{port}/file/x", tmp_path / "b").size_bytes
    with pytest.raises(TaskFailure) as other:
        get(f"https://other.example:{port}/file/x", tmp_path / "c")
    assert other.value.code == "source_tls_invalid"
