"""Files on the command line, against a real service: there, back, and never where nobody wanted them."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from celeriac.client import Client, Retries, Unreachable
from cli.app import app
from tests.support.command_line import Celeriac
from tests.support.servers.cuts import Cutter, cutter_to
from tests.support.servers.services import Server, gateway_server, http_client
from tests.support.servers.workers import ACME_ALONE, crew

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = "".join(f"{number}\n" for number in range(160_000)).encode()


@pytest.fixture(scope="module")
def service(own_valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a gateway and a worker; yield the gateway."""
    folder = tmp_path_factory.mktemp("files")
    env = {**ACME_ALONE, "CELERY_BROKER_URL": own_valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    kinds = {"CELERIAC_CONTRACTS": "tests.acme.contracts,shared.jobs.etl"}  # no worker of these runs here
    with gateway_server(folder, **env | kinds) as gateway, crew(folder, **env) as workers:
        workers.start(queues="etl,report", concurrency=2)
        yield gateway


@pytest.fixture
def celeriac(service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Celeriac:
    """Return the command line of this service, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Celeriac(service.url)


@pytest.fixture
def cutter(service: Server) -> Iterator[Cutter]:
    """Yield a proxy to the gateway."""
    with cutter_to(service.port) as made:
        yield made


@pytest.fixture(scope="module")
def numbers(service: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the id of a job with a file `note.txt` of a megabyte."""
    folder = tmp_path_factory.mktemp("numbers")
    (folder / "numbers.txt").write_bytes(NUMBERS)
    celeriac = Celeriac(service.url)
    note, notebook = f"note={folder / 'numbers.txt'}", f"notebook={folder / 'copies'}"
    job = celeriac.json("submit", "acme.copy_note", "--set", notebook, "--file", note, "--wait")
    assert (folder / "copies").read_bytes() == NUMBERS
    return str(job["id"])


def uploads(service: Server) -> float:
    """Return how many uploads the gateway has answered."""
    lines = http_client.get(f"{service.url}/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("http_requests_total") and '"/uploads"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts)


def test_upload_prints_the_uri_of_each(celeriac: Celeriac) -> None:
    """For a script to take; a name that the store does not have is changed."""
    Path("sales.csv").write_text("a,b\n1,2\n")
    Path("my sales (2).csv").write_text("a,b\n")
    first, second = celeriac.ok("upload", "sales.csv", "my sales (2).csv").splitlines()
    assert (first.endswith("/0/sales.csv"), second.endswith("/0/my_sales__2_.csv")) == (True, True)
    artifact = celeriac.json("upload", "sales.csv", "--name", "x.csv", "--media-type", "text/x-sales")
    expected = ("x.csv", "text/x-sales", 8, hashlib.sha256(b"a,b\n1,2\n").hexdigest())
    assert (artifact["name"], artifact["media_type"], artifact["size_bytes"], artifact["sha256"]) == expected


def test_upload_takes_standard_input_and_pipes(service: Server, celeriac: Celeriac) -> None:
    """As a shell gives them: `-`, and the pipe of `<(...)`."""
    words = ["upload", "-", "--name", "in.csv", "--json", "--url", service.url]
    given = json.loads(CliRunner().invoke(app, words, input=b"a\n1\n").stdout)
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=("b\n",))
    writer.start()
    piped = celeriac.json("upload", "pipe", "--name", "pipe.csv")
    writer.join()
    assert [(one["name"], one["size_bytes"]) for one in (given, piped)] == [("in.csv", 4), ("pipe.csv", 2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sales.csv", "missing.csv"), "missing.csv does not exist"),
        (("sales.csv", "."), ". is a folder"),
        (("-", "-"), "Standard input can be given only once"),
        (("sales.csv", "-", "--name", "x"), "--name is for a single file"),
        (("sales.csv", "--name", "../x"), "--name '../x': use at most 128 letters"),
    ],
)
def test_what_cannot_be_uploaded_is_said_before_anything_is(
    celeriac: Celeriac, service: Server, words: tuple[str, ...], said: str
) -> None:
    """Nothing of several files is sent if one of them is not there."""
    Path("sales.csv").write_text("a,b\n")
    before = uploads(service)
    refused = celeriac("upload", *words)
    assert (refused.exit_code, said in refused.stderr) == (2, True), refused.stderr
    assert uploads(service) == before


def test_submit_uploads_what_a_parameter_names(celeriac: Celeriac, numbers: str) -> None:
    """The job has the uri, and works on the file."""
    params = celeriac.json("get", numbers)["params"]
    assert params["note"].endswith("/0/numbers.txt")
    Path("a.txt").write_text("a")
    Path("b.txt").write_text("b")
    lists = celeriac.json(
        "submit", "acme.bind_notes", "--set", "notebook=bound.txt", "--file", "notes=a.txt", "--file", "notes=b.txt"
    )
    bound = celeriac.json("get", lists["id"])["params"]["notes"]
    assert [uri.rsplit("/", 1)[1] for uri in bound] == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("acme.copy_note", "--set", "notebook=n", "--file", "note=x"), "x does not exist"),
        (("acme.copy_note", "--set", "notebook=n", "--file", "nota=a.txt"), "no parameter 'nota'. Did you mean 'note'"),
        (("acme.copy_note", "--set", "notebook=n", "--file", "notebook=a.txt"), "does not take a file"),
        (("acme.copy_note", "--set", "nottebook=n", "--file", "note=a.txt"), "/params/nottebook: "),
        (("acme.copy_note", "--set", "notebook=n", "--file", "note=a.txt", "--queue", "q"), "/options/queue: "),
        (("acme.copy_nota", "--file", "note=a.txt"), "Did you mean 'acme.copy_note'"),
        (("acme.copy_note", "--file", "a.txt"), "--file a.txt: use NAME=PATH"),
        (("acme.copy_note", "--params", "-", "--file", "note=-"), "Standard input can be given only once"),
        (("acme.copy_note", "--idempotency-key", "k", "--file", "note=a.txt"), "--idempotency-key and --file"),
        (
            ("etl.extract_data", "--set", "source.kind=http", "--set", "source.url=http://x", "--file", "source=a.txt"),
            "or another --file, gives it, too",
        ),
    ],
)
def test_a_job_that_would_be_refused_uploads_nothing(
    celeriac: Celeriac, service: Server, words: tuple[str, ...], said: str
) -> None:
    """A parameter or an option that the kind does not have, a value given twice, a file that is not there."""
    Path("a.txt").write_text("a")
    before = uploads(service)
    refused = celeriac("submit", *words)
    assert (refused.exit_code, said in refused.stderr) == (2, True), refused.stderr
    assert uploads(service) == before


def test_validate_only_uploads_nothing(celeriac: Celeriac, service: Server) -> None:
    """The file's uri is made up for the check."""
    Path("sales.csv").write_text("a\n1\n")
    before = uploads(service)
    words = ("submit", "etl.extract_data", "--file", "source=sales.csv", "--validate-only")
    assert "was not submitted" in celeriac.ok(*words)
    assert uploads(service) == before


def test_files_of_a_job_are_listed_and_downloaded(celeriac: Celeriac, numbers: str) -> None:
    """Into this folder, into another one, to a path, or to standard output."""
    assert celeriac.ok("files", numbers).splitlines()[1].split()[:4] == ["note.txt", "file", "text/plain", "985.2"]
    assert [each["artifact"]["name"] for each in celeriac.json("files", numbers)["artifacts"]] == ["note.txt"]
    assert celeriac.ok("download", numbers) == "note.txt"
    assert celeriac.ok("download", numbers, "note.txt", "--to", "deep/er/") == "deep/er/note.txt"
    got = celeriac.json("download", numbers, "-o", "copy.txt")
    assert (got["path"], got["artifact"]["size_bytes"]) == ("copy.txt", len(NUMBERS))
    for path in ("note.txt", "deep/er/note.txt", "copy.txt"):
        assert Path(path).read_bytes() == NUMBERS
    assert celeriac("download", numbers, "--to", "-").stdout_bytes == NUMBERS
    assert not list(Path().glob(".*"))


def test_nothing_is_overwritten_without_force(celeriac: Celeriac, numbers: str) -> None:
    """Neither a file nor a link, which stays what it is for what it points to."""
    Path("note.txt").write_text("mine")
    Path("linked.txt").symlink_to("note.txt")
    Path("dangling.txt").symlink_to("nowhere.txt")
    for to in ("note.txt", "linked.txt", "dangling.txt", "."):
        refused = celeriac("download", numbers, "--to", to)
        assert (refused.exit_code, "is there already. Overwrite it with --force" in refused.stderr) == (2, True)
    assert (Path("note.txt").read_text(), Path("nowhere.txt").exists()) == ("mine", False)
    assert celeriac.ok("download", numbers, "--force", "--to", "linked.txt") == "linked.txt"
    assert (Path("note.txt").read_text(), Path("linked.txt").is_symlink()) == ("mine", False)
    assert celeriac.ok("download", numbers, "--force") == "note.txt"
    assert Path("note.txt").read_bytes() == NUMBERS


def test_what_another_program_makes_meanwhile_stays(celeriac: Celeriac, numbers: str, cutter: Cutter) -> None:
    """The file came into being between the look and the end of the download."""

    def meanwhile(part: bytes) -> bytes:
        if b"etag: " in part.lower():
            Path("late.txt").write_text("mine")
        return part

    cutter.alters = meanwhile
    refused = celeriac("download", numbers, "--to", "late.txt", "--url", cutter.url)
    assert (refused.exit_code, "late.txt: File exists" in refused.stderr) == (1, True), refused.stderr
    assert Path("late.txt").read_text() == "mine"


def test_files_of_one_name_get_that_of_their_step(celeriac: Celeriac) -> None:
    """A workflow whose steps made files of one name is fetched whole; one of them by its step."""
    words = ("submit", "acme.note_twice", "--set", "notebook=n.txt", "--set", "copybook=c.txt", "--wait", "--json")
    job_id = json.loads(celeriac.ok(*words))["id"]
    assert celeriac.ok("download", job_id, "--to", "all/").splitlines() == ["all/note-note.txt", "all/copy-note.txt"]
    assert celeriac.ok("download", job_id, "note.txt", "--step", "copy", "--to", "one") == "one"
    assert Path("one").read_bytes() == Path("all/copy-note.txt").read_bytes() != b""
    refused = celeriac("download", job_id, "--to", "-")
    assert "Choose one: note.txt --step note, note.txt --step copy." in refused.stderr
    assert "Steps with files: copy, note." in celeriac("download", job_id, "--step", "x").stderr


def test_files_that_are_not_there(celeriac: Celeriac, numbers: str) -> None:
    """A job without files, a file that the job does not have, a job that does not exist."""
    waiting = celeriac.ok("submit", "acme.take_note", "--set", "notebook=n", "--delay-s", "3600")
    none = celeriac("download", waiting)
    assert (none.exit_code, "has no files, or has not ended yet" in none.stderr) == (1, True)
    unknown = celeriac("download", numbers, "note.txt", "nota.txt")
    assert (unknown.exit_code, "Did you mean 'note.txt'" in unknown.stderr) == (2, True)
    assert not Path("note.txt").exists()
    assert celeriac("download", "01900000-0000-7000-8000-000000000000").exit_code == 2
    refused = celeriac("download", numbers, "--to", "/proc/no/such")
    assert (refused.exit_code, refused.stderr.startswith("/proc/no")) == (1, True), refused.output


def test_a_broken_download_is_resumed(celeriac: Celeriac, numbers: str, cutter: Cutter) -> None:
    """By the same command: what came is not fetched again, and what was altered is not kept."""
    cutter.cuts_after.append(300_000)
    with Client(cutter.url, retries=Retries(for_s=0)) as given_up, pytest.raises(Unreachable):
        given_up.download(numbers, "note.txt", "later.txt")
    assert celeriac.ok("download", numbers, "--to", "later.txt", "--url", cutter.url) == "later.txt"
    assert "Range: bytes=" in "".join(cutter.requests)
    assert Path("later.txt").read_bytes() == NUMBERS
    cutter.alters = lambda part: part.replace(b"\n77777\n", b"\n77778\n")
    wrong = celeriac("download", numbers, "--to", "wrong.txt", "--url", cutter.url)
    assert (wrong.exit_code, "but the job recorded" in wrong.stderr) == (1, True)
    assert [path.name for path in Path().iterdir()] == ["later.txt"]
    assert celeriac("download", numbers, "--to", "-", "--url", cutter.url).stdout_bytes == b""


@contextmanager
def answering(documents: dict[str, Any]) -> Iterator[str]:
    """Yield the URL of a server that answers each of these paths with its document, byte for byte as JSON has it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(documents[self.path.partition("?")[0]], ensure_ascii=False).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "name",
    ["../n.txt", "/etc/x.txt", ".bashrc", "", ".", "..", "a/b", "a\\b", "a\x1b[2J", "a\x9b2J", "a\u202eb", "a\0"],
)
def test_a_hostile_name_leads_nowhere(celeriac: Celeriac, numbers: str, name: str) -> None:
    """Whatever a server calls a file: it is not written outside the folder, and the terminal gets no control signs."""
    job, listed = celeriac.json("get", numbers), celeriac.json("files", numbers)
    job["artifacts"][0]["name"] = listed["artifacts"][0]["artifact"]["name"] = name
    around = set(Path("..").resolve().rglob("*"))
    with answering({f"/jobs/{numbers}": job, f"/jobs/{numbers}/artifacts": listed}) as url:
        refused = celeriac("download", numbers, "--url", url)
        shown = [celeriac(command, numbers, "--url", url) for command in ("files", "get")]
    assert (refused.exit_code, "which is not a name for it here: use --to PATH" in refused.stderr) == (2, True), name
    assert [each.exit_code for each in shown] == [0, 0]
    for said in (refused.output, *(each.output for each in shown)):
        assert all(sign.isprintable() or sign == "\n" for sign in said), repr(said)
    assert set(Path("..").resolve().rglob("*")) == around


def test_progress_is_for_terminals(service: Server, numbers: str, tmp_path: Path) -> None:
    """A bar with sizes on a terminal; nothing but the path elsewhere."""
    words = ["download", numbers, "--to", str(tmp_path / "a.txt"), "--url", service.url]
    plain = CliRunner().invoke(app, words)
    assert (plain.stderr, plain.stdout) == ("", f"{tmp_path / 'a.txt'}\n")
    words[3] = str(tmp_path / "b.txt")
    shown = CliRunner(env={"TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": "120"}).invoke(app, words)
    assert (shown.exit_code, shown.stdout) == (0, f"{tmp_path / 'b.txt'}\n")
    assert "985.2 KiB of 985.2 KiB, " in shown.stderr
