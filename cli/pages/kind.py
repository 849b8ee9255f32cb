"""Print a kind for people: its parameters from its JSON Schema, and an example to paste."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cli.pages.output import show_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import Console

_DEFAULT_SHOWN = 40  # characters of a default value


def show_kinds(kinds: Iterable[Mapping[str, Any]], out: Console) -> None:
    """Print the catalogue, one kind per line."""
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "queue", "summary"):
        table.add_column(name)
    for kind in kinds:
        table.add_row(kind["kind"], kind["queue"], Text(kind["summary"]))
    show_table(table, out)


def show_kind(kind: Mapping[str, Any], out: Console) -> None:
    """Print one kind: its summary, parameters, limits and an example."""
    out.print(Text.assemble((kind["kind"], "bold"), f"  {kind['summary']}"))
    if kind["description"]:
        out.print(Text(kind["description"]))
    limits, retry = kind["limits"], kind["retry"]
    out.print(
        Text(
            f"queue {kind['queue']}, at most {limits['hard_s']:g} s per attempt, "
            f"{retry['max_retries']} retries of transient failures"
        ),
        style="dim",
    )
    for line in _together(kind):
        out.print(Text(line), style="dim")
    out.print("parameters")
    show_table(_parameters(kind["params_schema"]), out)
    for example in kind["examples"][:1]:
        text = json.dumps(example, ensure_ascii=False)
        out.print("example")
        out.print(Text(f"  celeriac submit {kind['kind']} --params {shlex.quote(text)}"))


def _together(kind: Mapping[str, Any]) -> Iterator[str]:
    """Yield what holds for the jobs of a kind together."""

    def of_each(policy: Mapping[str, Any]) -> str:
        return f" for each {', '.join(policy['by'])}" if policy["by"] else ""

    if concurrency := kind["concurrency"]:
        yield f"at most {concurrency['limit']} run at once{of_each(concurrency)}"
    if rate := kind["rate"]:
        yield f"at most {rate['limit']} start{of_each(rate)}"
    if unique := kind["unique"]:
        more = ", which the next one replaces" if unique["meanwhile"] == "replace" else ""
        yield f"at most one that has not ended{of_each(unique)}{more}"
    if kind["version"] > 1:
        yield f"version {kind['version']} of its parameters"
    if kind["deprecated"]:
        yield f"deprecated: {kind['deprecated']}"


def _parameters(schema: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=30)
    table.add_column()
    definitions = schema.get("$defs", {})
    for name, field in schema.get("properties", {}).items():
        table.add_row(f"  {name}", Text(" | ".join(_types(field, definitions))), Text(_about(name, field, schema)))
    return table


def _about(name: str, field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    need = "required. " if name in schema.get("required", []) else ""
    default = json.dumps(field["default"]) if field.get("default") not in (None, [], {}) else ""
    said = f" Default: {default}." if default and len(default) <= _DEFAULT_SHOWN else ""
    return f"{need}{field.get('description', '')}{said}"


def _types(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Yield the accepted types in short words; a member of a union is named by its discriminator."""
    if ref := field.get("$ref"):
        name = ref.rsplit("/", 1)[1]
        yield from _types({"title": name, **definitions.get(name, {})}, definitions)
    elif options := field.get("oneOf") or field.get("anyOf"):
        for option in options:
            yield from _types(option, definitions)
    elif "const" in field or "enum" in field:
        yield from (json.dumps(value) for value in field.get("enum", [field.get("const")]))
    elif field.get("type") == "array":
        yield f"[{' | '.join(_types(field.get('items', {}), definitions))}]"
    elif field.get("type") == "object" and "properties" in field:
        tag = field["properties"].get("kind", {}).get("const")
        inner = ", ".join(name for name in field["properties"] if name != "kind")
        yield f'{{"kind": "{tag}", {inner}}}' if tag else f"{{{inner}}}"
    else:
        yield field.get("type", "any value")


def show_checked(kinds: Iterable[tuple[str, str, str]], out: Console) -> None:
    """Print kinds that were checked, with the function that runs each and its queue."""
    table = Table(box=None, pad_edge=False)
    for name in ("kind", "task", "queue"):
        table.add_column(name)
    for row in kinds:
        table.add_row(*row)
    show_table(table, out)
