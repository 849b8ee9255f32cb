"""The bodies of README and of the document's examples, as each client types them.

A compiler takes those in TypeScript as literals; the others read them into their models and write them again.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.clients.page import ROOT
from tests.clients.toolchains import ran

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEREDOC = re.compile(r"<<END\n(?P<text>\{.*?\n\})\nEND\n", re.DOTALL)
_URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/sales.csv"
_TYPES = """
import type { components } from "./celeriac";
export const bodies: components["schemas"]["JobSubmission"][] = BODIES;
"""
_TYPE = """
import type { JobSubmission } from "./client";
export const bodies: JobSubmission[] = BODIES;
"""
_COMPILE = "npx tsc --strict --noEmit --target es2022 --module nodenext bodies.ts"
_PYTHON = """
import json

from celeriac_client.models import BatchSubmission

given = BatchSubmission.from_dict({"jobs": json.load(open("bodies.json"))})
json.dump(given.to_dict()["jobs"], open("again.json", "w"), default=str)
"""
_GO = """
package main

import (
	"encoding/json"
	"os"

	"example.org/acme/celeriac"
)

func main() {
	text, _ := os.ReadFile("bodies.json")
	var jobs []celeriac.JobSubmission
	if err := json.Unmarshal(text, &jobs); err != nil {
		panic(err)
	}
	again, err := json.Marshal(jobs)
	if err != nil {
		panic(err)
	}
	os.WriteFile("again.json", again, 0o600)
}
"""
_JAVA = """
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import org.openapitools.client.ApiClient;
import org.openapitools.client.model.JobSubmission;

class Bodies {
  public static void main(String[] arguments) throws Exception {
    ObjectMapper mapper = new ApiClient().getObjectMapper();
    mapper.writeValue(new File("again.json"), mapper.readValue(new File("bodies.json"), JobSubmission[].class));
  }
}
"""
_JARS = (
    "jars=$(python -c 'import openapi_generator_cli as cli; print(cli.__path__[0])')/openapi-generator.jar"
    ":/usr/share/java/geronimo-annotation-1.3-spec.jar:classes\n"
)
# File, text and commands of each generator. In the text, BODIES stands for the bodies.
_CHECKS = {
    "openapi-python-client": ("bodies.py", _PYTHON, "python bodies.py"),
    "openapi-typescript and openapi-fetch": (
        "bodies.ts",
        _TYPES,
        _COMPILE,
    ),
    "hey-api": (
        "bodies.ts",
        _TYPE,
        _COMPILE,
    ),
    "openapi-generator: TypeScript": (
        "bodies.ts",
        _TYPE,
        _COMPILE,
    ),
    "openapi-generator: Python": ("bodies.py", _PYTHON, "python bodies.py"),
    "openapi-generator: Go": (
        "client/cmd/bodies/main.go",
        _GO,
        "(cd client && go build -o ../read-bodies ./cmd/bodies) && ./read-bodies",
    ),
    "openapi-generator: Java": (
        "Bodies.java",
        _JAVA,
        f'{_JARS}javac -cp "$jars" -d classes Bodies.java && java -cp "$jars" Bodies',
    ),
}


def bodies() -> list[dict[str, Any]]:
    """Return README's submissions and the document's example of each kind."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("$uri", _URI)
    document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    examples = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    found = [json.loads(body["text"]) for body in _HEREDOC.finditer(readme)]
    assert found
    return found + [example["value"] for example in examples.values()]


def wrong(name: str, folder: Path, environment: Mapping[str, str]) -> str | None:
    """Return what the client of a generator in `folder` makes of the bodies that is wrong, or None."""
    file, text, commands = _CHECKS[name]
    given = bodies()
    literal = json.dumps(given, indent=1)
    (folder / "bodies.json").write_text(literal)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(text.replace("BODIES", literal))
    done = ran(commands, folder, environment)
    if done.returncode:
        return done.stdout
    again = folder / "again.json"
    lost = _lost(given, json.loads(again.read_text())) if again.exists() else []
    return "\n".join(lost) or None


def _lost(given: Any, again: Any, where: str = "") -> list[str]:
    """Return where `again` differs from `given`; it may have more fields, which are defaults."""
    if isinstance(given, dict) and isinstance(again, dict):
        return [one for name in given for one in _lost(given[name], again.get(name), f"{where}/{name}")]
    if isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        pairs = zip(given, again, strict=True)
        return [one for index, (left, right) in enumerate(pairs) for one in _lost(left, right, f"{where}/{index}")]
    return [] if given == again else [f"{where}: {given!r} became {again!r}"]
