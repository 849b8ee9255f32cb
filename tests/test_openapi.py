"""The OpenAPI document: as committed, understood by generators, and true of the running gateway."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.contract.catalogue import catalogue
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.records import Claim
from tests.api.access.keys_made import KeyMaker
from tests.clients.page import generators
from tests.support.by_hand import hand
from tests.support.servers.absent import absent
from tests.support.servers.services import Server, gateway_server

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "openapi.json"
LARGEST_BYTES = 300_000
USE = """
import type { paths } from "./api";
type Answer<P extends "/jobs/{job_id}" | "/readyz"> = paths[P]["get"]["responses"];
const state: Answer<"/jobs/{job_id}">[200]["content"]["application/json"]["state"] = "queued";
const code: Answer<"/readyz">[503]["content"]["application/problem+json"]["code"] = "not_ready";
console.log(state, code);
"""
# Expected: what no schema can say (which queues there are, that a page token is one that was given out, that 'run_at'
# and 'delay_s' exclude each other, that a job goes on or was deleted by a call before, that a key was used before). Not
# checked: other methods on /jobs/batch and the like, for GET takes that for a job's id; and every corner of batches,
# repetitions and schedules, whose bodies are made of those of a job.
TOLERATED = """
[[operations]]
include-path = ["/jobs/batch", "/jobs/cancel", "/jobs/rerun", "/jobs/validate", "/jobs/batch/validate"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 422]
checks.allow_header_conformance.enabled = false
checks.unsupported_method.enabled = false

[[operations]]
include-path = ["/jobs", "/schedules", "/schedules/{schedule_id}", "/dead-letters"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 422]

[[operations]]
include-path = ["/schedules/{schedule_id}/run"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 422]

[[operations]]
include-path-regex = "^/keys"
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 422]

[[operations]]
include-path-regex = "^/jobs/.job_id."
checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", 404, 409, 410, 422]

[[operations]]
include-name = ["PUT /schedules/{schedule_id}", "POST /schedules", "POST /jobs/batch", "POST /jobs/{job_id}/rerun",
                "POST /jobs/batch/validate"]
phases.coverage.enabled = false
"""


def run(command: list[str], folder: Path, **env: str) -> str:
    """Run a program to its end and return what it printed; fail with it if it fails."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def document() -> Any:
    """Return the committed document."""
    return json.loads(DOCUMENT.read_text("utf-8"))


def of_all(part: Any) -> list[dict[str, Any]]:
    """Return each schema in a part of the document, and what else is an object in it."""
    if isinstance(part, list):
        return [found for item in part for found in of_all(item)]
    if not isinstance(part, dict):
        return []
    return [part, *(found for name, item in part.items() if name != "examples" for found in of_all(item))]


@pytest.fixture(scope="module")
def schemas(document: Any) -> list[dict[str, Any]]:
    """Return every schema of bodies and parameters, inner ones too."""
    parameters = [operation.get("parameters", []) for path in document["paths"].values() for operation in path.values()]
    return of_all(document["components"]["schemas"]) + of_all(parameters)


def test_the_committed_document_is_the_current_one_whatever_the_environment() -> None:
    """`make openapi` changes nothing, also where the environment configures other contracts and another broker."""
    env = {"CELERIAC_CONTRACTS": "no.such.module", "CELERY_BROKER_URL": "sqs://", "PYTHONHASHSEED": "7"}
    printed = run([sys.executable, "-m", "api.document"], ROOT, **env)
    assert printed == DOCUMENT.read_text("utf-8"), "run: make openapi"


def test_every_error_is_a_problem_document(document: Any) -> None:
    """Each 4xx and 5xx that an operation announces has the media type of RFC 9457 and no other."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert response == {"$ref": f"#/components/responses/Problem{status}"}, (method, path, status)
    for status, response in document["components"]["responses"].items():
        assert list(response["content"]) == ["application/problem+json"], status


def test_no_word_of_a_later_version_of_openapi_is_in_it(document: Any) -> None:
    """The document says 3.1, so 3.2's `itemSchema` is not in it."""
    assert document["openapi"].startswith("3.1")
    assert "itemSchema" not in DOCUMENT.read_text("utf-8")


def test_the_document_is_small_enough_for_a_page_that_shows_all_of_it() -> None:
    """Swagger UI needs minutes for an operation whose body writes out a union of twenty types again and again."""
    assert len(DOCUMENT.read_bytes()) <= LARGEST_BYTES


def test_no_union_is_written_out_twice(document: Any) -> None:
    """What is used in several places has a name."""
    seen: Counter[str] = Counter()

    def look(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(item)
        if isinstance(value, dict) and "discriminator" in value:
            seen[json.dumps(value["discriminator"], sort_keys=True)] += 1

    look(document)
    assert len(seen) > 10
    assert {union for union, times in seen.items() if times > 1} == set()


def test_every_result_has_a_type_that_is_known_by_the_kind(document: Any) -> None:
    """Each kind that can be submitted has a property of `JobResults`, and each refers to a schema of its own."""
    schemas = document["components"]["schemas"]
    results = schemas["JobResults"]["properties"]
    assert results.keys() == schemas["JobSubmission"]["discriminator"]["mapping"].keys()
    for kind, result in results.items():
        assert schemas[result["$ref"].rpartition("/")[2]]["type"] == "object", kind


def test_no_description_ends_a_comment(document: Any) -> None:
    """Clients in TypeScript, Java and Go have descriptions as comments."""
    assert "*/" not in json.dumps(document["components"]["schemas"])


def test_no_default_is_an_object_null_or_of_a_union_of_types(schemas: list[dict[str, Any]]) -> None:
    """Such a default does not compile in Go, and null is what a field that may be left out has anyway."""
    given = [schema for schema in schemas if "default" in schema]
    assert len(given) > 50
    for schema in given:
        types = [member for member in schema.get("anyOf", ()) if member != {"type": "null"}]
        assert not isinstance(schema["default"], dict | None), schema
        assert len(types) <= 1, schema


def test_numbers_have_a_width(schemas: list[dict[str, Any]]) -> None:
    """Go and Java make 32 bits of a number without a format, which the size of a file does not fit into."""
    for schema in schemas:
        if schema.get("type") == "number":
            assert schema.get("format") == "double", schema
        if schema.get("type") == "integer" and "format" not in schema:
            assert schema.get("maximum", 2**31) < 2**31, schema


def test_the_values_of_an_enum_have_names_in_every_language(document: Any, schemas: list[dict[str, Any]]) -> None:
    """Spaces have a name beside them; the values of named enums differ, for in Go they are names of one package."""
    enums = [schema for schema in schemas if schema.get("type") == "string" and "enum" in schema]
    assert len(enums) > 20
    for schema in enums:
        names = schema.get("x-enum-varnames", schema["enum"])
        assert len(set(names)) == len(schema["enum"])
        assert not any(name.isspace() or not name.strip("_") for name in names), schema
        if "x-enum-varnames" in schema:
            assert "default" not in schema, "a client in Python writes the name where the value belongs"
            assert all(re.fullmatch(r"[A-Z][A-Z_]*", name) for name in names), schema
    named = [value for schema in document["components"]["schemas"].values() for value in schema.get("enum", ())]
    assert len(set(named)) == len(named) > 5


def test_a_union_of_a_value_and_an_object_is_one_of_them(schemas: list[dict[str, Any]]) -> None:
    """A client in TypeScript keeps only the object of `anyOf`."""
    mixed = 0
    for schema in schemas:
        members = [member for member in schema.get("anyOf", ()) if member != {"type": "null"}]
        objects = [member for member in members if "$ref" in member or member.get("type") == "object"]
        assert len(members) == 1 or len(objects) in {0, len(members)}, schema
        mixed += any(member.get("type") == "string" for member in schema.get("oneOf", ()))
    assert mixed == 3


def test_a_map_in_a_union_has_a_name(document: Any, schemas: list[dict[str, Any]]) -> None:
    """Java cannot read a union with a map; by its name, the user of a generator says what to take instead."""
    with_map = [schema for schema in schemas if any("propertyNames" in member for member in schema.get("oneOf", ()))]
    assert with_map == [document["components"]["schemas"]["ClassWeights"]]


def test_every_schema_is_used(document: Any) -> None:
    """A schema that nothing refers to is a class in a client that nobody needs; `JobResults` is what people cast to."""
    text = DOCUMENT.read_text("utf-8")
    unused = {name for name in document["components"]["schemas"] if f'"#/components/schemas/{name}"' not in text}
    assert unused == {"JobResults"}


def test_what_clients_cannot_submit_is_not_in_it(document: Any) -> None:
    """Kinds that are only steps of workflows are left out, and a submission has one successful answer."""
    internal = {kind for kind, contract in catalogue().items() if contract.spec.internal}
    assert "ml.run_trial" in internal
    assert not any(f'"{kind}"' in DOCUMENT.read_text("utf-8") for kind in internal)
    for path in ("/jobs", "/jobs/batch"):
        assert [status for status in document["paths"][path]["post"]["responses"] if status < "400"] == ["202"]


@pytest.mark.integration
def test_a_generated_python_client_submits_polls_and_cancels(
    gateway: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openapi-python-client takes the document without a warning, and what it makes works."""
    generator = shutil.which("openapi-python-client", path=Path(sys.executable).parent)
    assert generator is not None
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # it looks for ruff
    arguments = ["generate", "--path", str(DOCUMENT), "--output-path", "celeriac_client", "--meta", "none"]
    run([generator, *arguments, "--fail-on-warning"], tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    client = SimpleNamespace(
        models=importlib.import_module("celeriac_client.models"),
        of=importlib.import_module("celeriac_client").Client(base_url=gateway.url),
        **{
            name: importlib.import_module(f"celeriac_client.api.jobs.{name}")
            for name in ("submit_job", "get_job", "cancel_job")
        },
    )
    source = {"kind": "http", "url": "https://example.org/sales.csv"}
    body = client.models.SubmitEtlExtractData.from_dict({"kind": "etl.extract_data", "params": {"source": source}})
    accepted = client.submit_job.sync(client=client.of, body=body)
    job = client.get_job.sync(accepted.id, client=client.of, wait_s=0.1)
    assert (job.id, job.kind, job.state) == (accepted.id, "etl.extract_data", "queued")
    assert client.cancel_job.sync(accepted.id, client=client.of).state == "cancelled"
    assert client.get_job.sync(accepted.id, client=client.of, wait_s=5).state == "cancelled"
    refused = client.cancel_job.sync(accepted.id, client=client.of)
    client.of.get_httpx_client().close()
    assert (refused.status, refused.code) == (409, "job_ended")


@pytest.fixture(scope="session")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install openapi-typescript and the compiler into a folder; skip where there is no Node (not in CI)."""
    npm = shutil.which("npm")
    if npm is None:
        absent("npm is not installed, so openapi-typescript cannot be")
    folder = tmp_path_factory.mktemp("typescript")
    versions = next(one.versions for one in generators() if one.name.startswith("openapi-typescript"))
    packages = [f"{name}@{version}" for name, version in versions.items()]
    run([npm, "install", "--no-audit", "--no-fund", "--silent", *packages], folder)
    return folder


@pytest.mark.integration
@pytest.mark.journey
def test_openapi_typescript_takes_it_and_the_compiler_what_it_makes(typescript: Path) -> None:
    """The generated types compile strictly, and know states and problem documents."""
    programs = typescript / "node_modules" / ".bin"
    run([str(programs / "openapi-typescript"), str(DOCUMENT), "-o", "api.d.ts"], typescript)
    (typescript / "use.ts").write_text(USE)
    run([str(programs / "tsc"), "--noEmit", "--strict", "use.ts"], typescript)


def end_every_job(ledger: Ledger, stop: threading.Event) -> None:
    """Run every job that is queued, with an empty result, and cancel those that are to start later."""
    while not stop.wait(0.05):
        for job_id in ledger.client.zrange(key("state", "scheduled"), 0, -1):
            ledger.cancel(str(job_id), reason="The test does not wait.")
        for job_id in ledger.client.zrange(key("state", "queued"), 0, -1):
            claim = ledger.claim(str(job_id), owner="hand", worker="hand@test", lease_s=60, message="{}")
            if isinstance(claim, Claim):
                ledger.succeed(str(job_id), token=claim.token, result="{}")
            elif claim.why == "held":
                ledger.cancel(str(job_id), reason="The test does not wait for a resume.")


@pytest.fixture
def jobs_end(own_valkey: Server) -> Iterator[None]:
    """Let every job end soon, so that no wait and no stream of events lasts."""
    stop = threading.Event()
    with hand(own_valkey.port) as ledger:
        ledger.client.flushall()  # workers that other tests have made up are not those of a service
        worker = threading.Thread(target=end_every_job, args=(ledger, stop))
        worker.start()
        try:
            yield
        finally:
            stop.set()
            worker.join()


@pytest.mark.integration
@pytest.mark.usefixtures("jobs_end")
def test_a_gateway_does_what_its_document_says(own_valkey: Server, tmp_path: Path) -> None:
    """With right and wrong requests to every operation, no answer that the document does not announce.

    The gateway has kinds with plain parameters: from those of `etl.transform_data`, which contain each other,
    schemathesis does not come back. Their checks are the same code.
    """
    schemathesis = shutil.which("schemathesis", path=Path(sys.executable).parent)
    assert schemathesis is not None
    env = {
        "CELERY_BROKER_URL": own_valkey.redis_url,
        "CELERIAC_STORE_URL": str(tmp_path / "artifacts"),
        "CELERIAC_CONTRACTS": "tests.acme.contracts",
    }
    key = KeyMaker(own_valkey).make()  # without one, what the document says of keys would not be true
    with gateway_server(tmp_path / "gateway", **env) as gateway:
        (tmp_path / "schemathesis.toml").write_text(TOLERATED)
        command = [schemathesis, "run", f"{gateway.url}/openapi.json", "--max-examples", "5"]
        command += [
            "--header",
            f"Authorization: Bearer {key}",
            "--seed",
            "1",
            "--no-shrink",
            "--request-timeout",
            "70",
            "--generation-database",
            "none",
        ]
        run([*command, "--no-color"], tmp_path)
        assert "Traceback" not in gateway.log.read_text()
