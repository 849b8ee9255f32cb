"""Where the uri of an uploaded file goes among the parameters of a job, by the JSON Schema of its kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cli.commands.arguments import Mistyped
from shared.contract.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_UNIONS = ("anyOf", "oneOf", "allOf")
_URI = "^artifact://"  # how the pattern of a text that names a file begins
_DEEPEST = 4  # levels at which files are looked for, to name the places


def put_file(params: dict[str, Any], place: str, uri: str, schema: Mapping[str, Any]) -> None:
    """Put a file's uri where `place` is, such as `dataset`, `source` or `transform.inputs.regions`.

    It becomes what the parameter takes there: the uri itself; an object with it, `{"kind": "artifact", "uri": ...}`, in
    which what is set already stays; or one more item of a list. Raises `Mistyped`.
    """
    holder: Any = params
    forms = list(_forms(schema, schema))
    names = place.split(".")
    for depth, name in enumerate(names):
        inner = [form for outer in forms for form in _inside(outer, name, holder, schema)]
        if not inner:
            raise _unknown(place, ".".join(names[: depth + 1]), schema)
        forms = inner
        last = depth == len(names) - 1
        if not last:
            holder = _step_into(holder, name, place)
    _set(holder, names[-1], [form for form in forms if _takes(form, schema)], uri, place=place, schema=schema)


def _set(
    holder: Any, name: str, forms: Sequence[Mapping[str, Any]], uri: str, *, place: str, schema: Mapping[str, Any]
) -> None:
    if not forms:
        raise Mistyped(f"--file {place}: this parameter does not take a file. {_places(schema)}")
    key: Any = int(name) if isinstance(holder, list) else name
    there = holder[key] if isinstance(holder, list) else holder.get(key)
    form = forms[0]
    if form.get("type") == "array":
        items = [] if there is None else there
        if not isinstance(items, list):
            raise Mistyped(f"--file {place}: a list belongs there, and --params or --set gives something else.")
        items.append(_value(next(_of_items(form, schema)), None, uri, place))
        holder[key] = items
        return
    holder[key] = _value(form, there, uri, place)


def _value(form: Mapping[str, Any], there: Any, uri: str, place: str) -> Any:
    """Return the value with the uri, in the form that the parameter takes. `there` is what is set already."""
    if form.get("type") == "string":
        if there is not None:
            raise Mistyped(f"--file {place}: --params or --set, or another --file, gives it, too. Leave one out.")
        return uri
    constants = {name: field["const"] for name, field in form["properties"].items() if "const" in field}
    before = {} if there is None else there
    if not isinstance(before, dict) or "uri" in before or {**before, **constants} != {**constants, **before}:
        raise Mistyped(f"--file {place}: --params or --set, or another --file, gives it, too. Leave one out.")
    return {**constants, **before, "uri": uri}


def _step_into(holder: Any, name: str, place: str) -> Any:
    """Return what is below `name`; a missing object is made. Raises `Mistyped`."""
    below = holder[int(name)] if isinstance(holder, list) else holder.setdefault(name, {})
    if isinstance(below, dict | list):
        return below
    raise Mistyped(f"--file {place}: {name!r} is a plain value by --params or --set. Leave that out.")


def _forms(form: Any, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the forms that a value may have, without references and unions."""
    if not isinstance(form, dict):
        return
    if ref := form.get("$ref"):
        yield from _forms(schema.get("$defs", {}).get(ref.rsplit("/", 1)[1], {}), schema)
    elif union := next((form[name] for name in _UNIONS if name in form), None):
        for option in union:
            yield from _forms(option, schema)
    else:
        yield form


def _inside(form: Mapping[str, Any], name: str, holder: Any, schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the forms of the value `name` in a value of this form."""
    if form.get("type") == "array":
        if isinstance(holder, list) and name.isdecimal() and int(name) < len(holder):
            yield from _of_items(form, schema)
        return
    if isinstance(holder, list):
        return
    found = form.get("properties", {}).get(name)
    if found is None:
        patterns = form.get("patternProperties", {})
        found = next((inner for pattern, inner in patterns.items() if re.search(pattern, name)), None)
    yield from _forms(form.get("additionalProperties") if found is None else found, schema)


def _of_items(form: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (item for item in _forms(form.get("items"), schema) if _takes(item, schema, in_list=True))


def _takes(form: Mapping[str, Any], schema: Mapping[str, Any], *, in_list: bool = False) -> bool:
    """Return whether a value of this form can be a file: its uri, an object that needs only this, or a list of such."""
    if form.get("type") == "string":
        return str(form.get("pattern", "")).startswith(_URI)
    if form.get("type") == "array":
        return not in_list and any(_of_items(form, schema))
    fields = form.get("properties", {})
    open_ = [name for name in form.get("required", []) if "const" not in fields.get(name, {})]
    return open_ == ["uri"] and str(fields["uri"].get("pattern", "")).startswith(_URI)


def _unknown(place: str, known: str, schema: Mapping[str, Any]) -> Mistyped:
    outer, _, name = known.rpartition(".")
    names = [] if outer else list(schema.get("properties", {}))
    where = f" in {outer}" if outer else ""
    hint = f" {did_you_mean(name, names)}" if names else ""
    return Mistyped(f"--file {place}: the job has no parameter {name!r}{where}.{hint} {_places(schema)}")


def _places(schema: Mapping[str, Any]) -> str:
    """Return in a sentence which parameters take a file."""
    found = sorted(set(_found(schema, schema, "", 0)))
    return f"A file can be: {', '.join(found)}." if found else "No parameter of this kind takes a file."


def _found(form: Mapping[str, Any], schema: Mapping[str, Any], prefix: str, depth: int) -> Iterator[str]:
    if depth == _DEEPEST:
        return
    for name, field in form.get("properties", {}).items():
        for inner in _forms(field, schema):
            if _takes(inner, schema):
                yield f"{prefix}{name}"
            elif inner.get("type") == "object":
                yield from _found(inner, schema, f"{prefix}{name}.", depth + 1)
    of_any_name = [*form.get("patternProperties", {}).values(), form.get("additionalProperties")]
    if any(_takes(inner, schema) for field in of_any_name for inner in _forms(field, schema)):
        yield f"{prefix}NAME"
