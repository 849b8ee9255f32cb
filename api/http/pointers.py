"""Turn Pydantic's error locations into JSON pointers into the body, and suggest the nearest known name.

Pydantic puts the tags of unions into a location (`("etl.extract_data", "params", "source", "http", "url")`).
Walking the JSON Schema along shows which part is a tag and which a field, and which fields exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic_core import ErrorDetails

from api.http.problems import MOST_ERRORS, FieldError
from shared.contract.spelling import did_you_mean

Code = Literal["invalid_request", "unknown_kind"]
Schema = Mapping[str, Any]


class SchemaMap:
    """A JSON Schema to walk through."""

    def __init__(self, schema: Schema) -> None:
        self._root = schema
        self._definitions: Schema = schema.get("$defs", {})

    def locate(self, location: Sequence[str | int]) -> tuple[list[str], Schema]:
        """Return the path in the body of a Pydantic location, and the schema of the last part's parent."""
        node, holder, path = self._resolved(self._root), self._root, list[str]()
        for part in location:
            branches = _branches(node)
            if part == "[key]":
                continue
            if branches:
                node = self._branch(branches, node, part)
                continue
            path.append(str(part))
            holder, node = node, self._resolved(self._below(node, part))
        return path, holder

    def _resolved(self, node: Schema) -> Schema:
        while True:
            real = [branch for branch in node.get("anyOf", []) if branch.get("type") != "null"]
            if "$ref" in node:
                node = self._definitions[node["$ref"].rpartition("/")[2]]
            elif len(real) == 1:
                node = real[0]  # X | None: Pydantic adds no part for it
            else:
                return node

    def _branch(self, branches: Sequence[Schema], node: Schema, tag: str | int) -> Schema:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if tag in mapping:
            return self._resolved({"$ref": mapping[tag]})
        return self._resolved(branches[0])

    @staticmethod
    def _below(node: Schema, part: str | int) -> Schema:
        if isinstance(part, int):
            return _schema(node.get("items"))
        return _schema(node.get("properties", {}).get(part, node.get("additionalProperties")))

    def names_in(self, holder: Schema) -> list[str]:
        """Return the names of the fields of an object's schema."""
        return sorted(holder.get("properties", {}))


def field_errors(errors: Iterable[ErrorDetails], schema: SchemaMap) -> tuple[Code, list[FieldError]]:
    """Return the code of the problem, and the error of each field."""
    code: Code = "invalid_request"
    found = []
    for error in list(errors)[:MOST_ERRORS]:
        path, holder = schema.locate(error["loc"])
        context = error.get("ctx", {})
        message = error["msg"].removeprefix("Value error, ")
        match error["type"]:
            case "extra_forbidden":
                message = f"There is no such field. {did_you_mean(path[-1], schema.names_in(holder))}"
            case "missing":
                message = "The required field is missing."
            case "union_tag_not_found":
                path.append(context["discriminator"].strip("'"))
                message = "The field is missing; it selects the kind of object."
            case "union_tag_invalid":
                path.append(context["discriminator"].strip("'"))
                known = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
                message = f"{context['tag'][:100]!r} is not known. {did_you_mean(context['tag'], known)}"
                if _is_job_kind(path):
                    code = "unknown_kind"
                    message += " GET /job-kinds lists all kinds."
            case "literal_error" if _is_job_kind(path):  # a catalogue of one kind has no union
                code = "unknown_kind"
                message = f"The value is unknown; use {context['expected']}."
            case _:
                pass
        found.append(FieldError(pointer=pointer(path), message=message))
    return code, found


def pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _is_job_kind(path: Sequence[str]) -> bool:
    """Return whether a path is that of a job's kind: `/kind`, or `/jobs/3/kind` in a batch."""
    return path == ["kind"] or (len(path) == 3 and path[0] == "jobs" and path[2] == "kind")  # noqa: PLR2004


def _branches(node: Schema) -> Sequence[Schema]:
    found: Sequence[Schema] = node.get("oneOf") or node.get("anyOf") or ()
    return found


def _schema(node: Any) -> Schema:
    return node if isinstance(node, Mapping) else {}
