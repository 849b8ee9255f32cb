"""Requirements, Dockerfiles and the compose file keep what they promise."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from api.settings import GatewaySettings
from deploy.images import images
from shared.broker.settings import BrokerSettings
from shared.contract.families import FAMILIES
from tests.support.servers.absent import absent
from worker.settings import WorkerSettings
from worker.upkeep.alive import FILE_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
ROLES = {
    "api": ["api", "sqs", "database"],
    "beat": ["worker", "sqs"],
    "flower": ["flower", "sqs"],
    **{f"worker-{name}": [*family.extras, "sqs", "database"] for name, family in FAMILIES.items()},
}
WORKER = ("worker/*.py", "worker/runtime", "worker/upkeep", "worker/reach")  # what every worker has
FETCHING = {"httpx", "httpcore"}  # worker/reach has it for those that ask HTTP servers
LEFT_OUT = {family: {*FETCHING, "weasyprint"} for family in ("worker-ml", "worker-report")}  # PDF is an extra
DOCKERFILES = ("Dockerfile.api", "Dockerfile.worker")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _pins(lock: Path) -> dict[str, list[Requirement]]:
    """Return the requirements of a lock file by name; a package may have one pin for each Python."""
    pins: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?=[a-z0-9])", lock.read_text()):
        line = entry.split(" \\\n")[0].strip()
        if not line.startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def _asked(extras: list[str]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [asked for line in lines if (asked := Requirement(line)).name != project["name"]]  # extras name each other


def _third_party(*patterns: str) -> set[str]:
    """Return the distributions that the files' own imports, at whatever depth in the code, come from."""
    distributions = packages_distributions()
    own = {"api", "celeriac", "cli", "shared", "worker"} | sys.stdlib_module_names
    found: set[str] = set()
    for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for top in {name.partition(".")[0] for name in names} - own:
                found |= {canonicalize_name(name) for name in distributions[top]}
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_requirement_is_pinned_with_hashes_and_names_no_place(lock: Path) -> None:
    """A lock file pins exact versions with sha256 hashes, and names no index, address or folder."""
    text = "\n".join(line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#"))
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    pin = re.compile(r"[a-z0-9.-]+(\[[a-z0-9,-]+\])?==[^ ]+( ; [^\n\\]+)?( \\\n +--hash=sha256:[0-9a-f]{64})+")
    assert [entry for entry in entries if not pin.fullmatch(entry.strip())] == []
    assert re.findall(r"://|file:|--(?:index|extra|find)|\.\./|/work|/root|/opt|/home", lock.read_text()) == []


@pytest.mark.parametrize("role", ROLES)
def test_pins_are_what_pyproject_asks_for(role: str) -> None:
    """Each package that a role's extras ask for is pinned to a version that they allow: `make lock` was run."""
    pins = _pins(ROOT / "requirements" / f"{role}.txt")
    unmet = [
        str(asked)
        for asked in _asked(ROLES[role])
        if not any(
            asked.specifier.contains(str(pin.specifier).removeprefix("=="))
            for pin in pins.get(canonicalize_name(asked.name), [])
        )
    ]
    assert unmet == []


@pytest.mark.parametrize("role", [*ROLES, "uv"])
def test_a_role_has_the_versions_that_the_tests_run_on(role: str) -> None:
    """Every pin of a role's file is also one of dev.txt."""
    tested = {name: {str(pin.specifier) for pin in pins} for name, pins in _pins(ROOT / "requirements/dev.txt").items()}
    pinned = _pins(ROOT / "requirements" / f"{role}.txt")
    assert [name for name, pins in pinned.items() if not {str(pin.specifier) for pin in pins} <= tested[name]] == []


@pytest.mark.parametrize(
    ("role", "sources"),
    [
        ("api", ("api", "shared")),
        *((f"worker-{name}", ("shared", *WORKER, *family.folders)) for name, family in FAMILIES.items()),
    ],
)
def test_an_image_has_what_its_code_imports(role: str, sources: tuple[str, ...]) -> None:
    """Each third-party module that a role's sources import, at whatever depth, is pinned in its requirements."""
    files = (source if source.endswith(".py") else f"{source}/**/*.py" for source in sources)
    assert _third_party(*files) - set(_pins(ROOT / "requirements" / f"{role}.txt")) == LEFT_OUT.get(role, set())


def test_gateway_beat_and_flower_have_no_heavy_library() -> None:
    """Neither pandas nor NumPy, DuckDB, Arrow or scikit-learn is installed where no task runs."""
    heavy = {"pandas", "numpy", "duckdb", "pyarrow", "scikit-learn"}
    for role in ("api", "beat", "flower"):
        assert heavy & set(_pins(ROOT / "requirements" / f"{role}.txt")) == set()


def _stages(dockerfile: str) -> dict[str, list[str]]:
    """Return the instructions of each stage, continuation lines joined; the last stage without a name is `final`."""
    text = re.sub(r"^#.*\n", "", (ROOT / dockerfile).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    name, stages = "arguments", dict[str, list[str]](arguments=[])  # they stand before the first stage
    for line in filter(None, text.splitlines()):
        if line.startswith("FROM "):
            name = line.partition(" AS ")[2] or "final"
            stages[name] = []
        stages[name].append(line)
    return stages


RUN_STAGES = [
    ("Dockerfile.api", "final"),
    ("Dockerfile.worker", "worker"),
    ("Dockerfile.worker", "beat"),
    ("Dockerfile.worker", "flower"),
]


@pytest.mark.parametrize(("dockerfile", "stage"), RUN_STAGES)
def test_an_image_runs_as_nobody_in_particular_and_says_how_it_is(dockerfile: str, stage: str) -> None:
    """What runs has a user that is not root, a health check and a command in exec form."""
    instructions = _stages(dockerfile)[stage]
    assert [line for line in instructions if line.startswith("USER ")] == ["USER celeriac"]
    assert len([line for line in instructions if re.match(r"HEALTHCHECK .*CMD \[", line)]) == 1
    assert len([line for line in instructions if line.startswith("CMD [")]) == 1
    assert not any(line.startswith("ENTRYPOINT") for line in instructions)
    assert "pip" not in " ".join(instructions)  # it stays in the stage that installs


@pytest.mark.parametrize(("dockerfile", "stage"), RUN_STAGES)
def test_an_image_starts_programs_with_our_packages_first(dockerfile: str, stage: str) -> None:
    """A working directory with packages of the same names does not shadow ours, see celeriac/start.py."""
    commands = re.findall(r"CMD (\[.*\])", "\n".join(_stages(dockerfile)[stage]))
    commands += [
        json.dumps(service["command"]) for service in SERVICES.values() if "celery" in service.get("command", ())
    ]
    starting = [json.loads(command) for command in commands if "urllib" not in command]  # that imports nothing of ours
    assert starting
    assert [words for words in starting if words[:3] != ["python3", "-P", "/app/celeriac/start.py"]] == []


@pytest.mark.parametrize(
    ("dockerfile", "stage", "copied"),
    [
        ("Dockerfile.api", "final", {"celeriac", "shared", "api"}),
        ("Dockerfile.worker", "worker", {"celeriac", "shared", *WORKER, "worker/${FAMILY}"}),
        ("Dockerfile.worker", "beat", {"celeriac", "shared", *WORKER}),
        ("Dockerfile.worker", "flower", {"celeriac", "shared", *WORKER}),
    ],
)
def test_an_image_copies_only_what_its_role_needs(dockerfile: str, stage: str, copied: set[str]) -> None:
    """Of the project an image has its role's packages and nothing else."""
    copies = [line.split()[1:] for line in _stages(dockerfile)[stage] if line.startswith("COPY ")]
    assert {words[0] for words in copies if not words[0].startswith("--from=")} == copied


@pytest.mark.parametrize("name", [*DOCKERFILES, "docker-compose.yml", ".dockerignore", ".env.example"])
def test_no_registry_and_no_credential_is_committed(name: str) -> None:
    """No file of the deployment names a registry's host, an index setting or a password."""
    text = (ROOT / name).read_text()
    assert re.findall(r"index-url|trusted-host|https://|\b[\w-]+\.(?:io|org|com)/", text) == []
    assert re.findall(r"^\w*PASSWORD=.+$", text, re.MULTILINE) == []


def test_every_image_is_built_by_make_images_and_by_compose() -> None:
    """The compose file and `make images` know the same images."""
    own = {service["image"].partition(":")[0] for service in SERVICES.values() if "build" in service}
    assert own == {image.name for image in images()}


def test_each_family_has_a_service_of_its_own() -> None:
    """A family's workers are the service `worker-celery-FAMILY`, built with that family's argument."""
    assert {name for name in SERVICES if name.startswith("worker-")} == {f"worker-celery-{name}" for name in FAMILIES}
    for family in FAMILIES:
        service = SERVICES[f"worker-celery-{family}"]
        assert (service["build"]["target"], service["build"]["args"]) == ("worker", {"FAMILY": family})
        assert service["image"].startswith(f"celeriac-worker-{family}:")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_restarts_stops_in_time_and_has_limits(name: str) -> None:
    """Each service has a restart policy, a grace period, limits of CPU, memory and processes, and bounded logs."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert _seconds(service["stop_grace_period"]) >= 10
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert "no-new-privileges:true" in service["security_opt"]


@pytest.mark.parametrize("name", sorted(name for name, service in SERVICES.items() if "build" in service))
def test_a_service_of_ours_is_read_only_and_waits_for_the_broker(name: str) -> None:
    """Our containers cannot write to their root file system, hold no capability, and start after a healthy Valkey."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["depends_on"] == {"valkey": {"condition": "service_healthy"}}


def test_workers_have_longer_to_stop_than_their_jobs_get() -> None:
    """A worker gives its jobs back before Docker kills it."""
    for family in FAMILIES:
        service = SERVICES[f"worker-celery-{family}"]
        assert _seconds(service["stop_grace_period"]) >= float(service["environment"]["CELERIAC_SOFT_SHUTDOWN_S"]) + 15


def test_ports_are_published_on_loopback_only() -> None:
    """Only what people look at publishes a port, and only to this host."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "flower", "grafana"}
    assert [port for ports in published.values() for port in ports if not port.startswith("127.0.0.1:")] == []


def test_valkey_keeps_accepted_jobs() -> None:
    """The broker writes an append-only file to a volume, never evicts, and asks for a password."""
    command = SERVICES["valkey"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--requirepass"].startswith("${VALKEY_PASSWORD:?")
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]
    assert "healthcheck" in SERVICES["valkey"]


def test_metrics_are_an_extra_that_finds_the_gateway() -> None:
    """Prometheus and Grafana start with their profile only, and scrape the gateway under a name that it has."""
    extra = {name for name, service in SERVICES.items() if service.get("profiles")}
    assert extra == {"prometheus", "grafana"}
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    (target,) = scraped["static_configs"][0]["targets"]
    assert target.partition(":")[0] in SERVICES["api"]["networks"]["default"]["aliases"]
    for name in extra:
        mounted = [volume.partition(":")[0] for volume in SERVICES[name]["volumes"] if volume.startswith("./")]
        assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_flower_asks_for_a_password_that_has_no_default() -> None:
    """Without FLOWER_PASSWORD nothing starts."""
    assert re.fullmatch(
        r"\$\{FLOWER_USER:-\w+\}:\$\{FLOWER_PASSWORD:\?.+\}", SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"]
    )


def test_only_workers_have_the_credentials_of_connections() -> None:
    """The gateway, beat and Flower never hold a connection's password."""
    assert {name for name, service in SERVICES.items() if "env_file" in service} == {
        f"worker-celery-{family}" for family in FAMILIES
    }


def test_who_signs_callbacks_and_who_takes_them_has_the_secret() -> None:
    """The gateway refuses callbacks without it; who runs the family signs with it, old messages of it included."""
    holders = {
        name for name, service in SERVICES.items() if "CELERIAC_WEBHOOK_SECRET" in service.get("environment", {})
    }
    signing = {name for name, family in FAMILIES.items() if "callbacks" in (name, *family.also_runs)}
    assert holders == {"api", *(f"worker-celery-{name}" for name in signing)}
    assert COMPOSE["x-webhook-secret"] == {"CELERIAC_WEBHOOK_SECRET": "${CELERIAC_WEBHOOK_SECRET:-}"}


def test_what_tasks_write_aside_goes_to_a_disk() -> None:
    """The only places that workers can write to are the store and a volume at /tmp, where matplotlib's folder is."""
    for family in FAMILIES:
        writable = [
            volume for volume in SERVICES[f"worker-celery-{family}"]["volumes"] if not str(volume).endswith(":ro")
        ]
        assert writable == ["artifacts:/var/lib/celeriac", {"type": "volume", "target": "/tmp"}]  # noqa: S108 - inside
    for family in ("report", "ml"):
        assert "ENV MPLCONFIGDIR=/tmp/matplotlib" in _stages("Dockerfile.worker")[f"for-{family}"]


def test_the_settings_that_compose_makes_exist() -> None:
    """Every CELERIAC_ variable that a container gets is a field of some settings."""
    fields = [*BrokerSettings.model_fields, *WorkerSettings.model_fields, *GatewaySettings.model_fields]
    known = {f"CELERIAC_{field}".upper() for field in fields} | {"CELERIAC_CONTRACTS", "CELERIAC_QUEUES"}
    given = {name for service in SERVICES.values() for name in service.get("environment", {})}
    given |= set(re.findall(r"CELERIAC_\w+(?==)", "".join((ROOT / name).read_text() for name in DOCKERFILES)))
    assert {name for name in given if name.startswith("CELERIAC_")} - known - {FILE_VARIABLE} == set()


def test_env_example_names_every_variable_of_the_compose_file() -> None:
    """What docker-compose.yml and deploy/own/compose.yml read from .env is in .env.example, and nothing else."""
    files = (ROOT / "docker-compose.yml", ROOT / "deploy/own/compose.yml")
    read = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    assert set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)) == read


def test_compose_accepts_the_file() -> None:
    """Docker Compose reads the file as it stands; it needs no engine for that."""
    compose = next((words for words in (["docker", "compose"], ["docker-compose"]) if _answers(words)), None)
    if compose is None:
        absent("Docker Compose is not installed (.ci/run does it)")
    environment = os.environ | {"VALKEY_PASSWORD": "a", "FLOWER_PASSWORD": "b"}
    command = [*compose, "config", "--quiet"]
    read = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


def _answers(command: list[str]) -> bool:
    if not shutil.which(command[0]):
        return False
    return subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))
