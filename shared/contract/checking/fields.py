"""Check the fields of a contract and of its result: what JSON, a document or a message would lose."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo

from shared.contract.artifacts import Artifact, BuiltInRole, OwnRole
from shared.contract.spec import Fault, FedFromUpstream

_SECRETS = (SecretStr, SecretBytes, Secret)
_DESCRIBED = {str, int, float, bool, type(None), list, dict, tuple, set, frozenset, types.UnionType, datetime, date}
_STEPS_BACK = {"task", "upgrade"}  # see `unless_a_parameter`: kinds had such parameters first
_A_URI = "artifact://00000000-0000-0000-0000-000000000000/0/file"
_OWN_CONFIG = ("extra", "strict", "frozen", "allow_inf_nan")
T = TypeVar("T")


def _once(look: Callable[[type[BaseModel]], Iterable[T]]) -> Callable[[type[BaseModel]], Iterable[T]]:
    """Look at a model once, when all its types are defined: kinds share them, and each start looks at every kind."""
    seen: WeakKeyDictionary[type[BaseModel], tuple[T, ...]] = WeakKeyDictionary()

    def known(model: type[BaseModel]) -> Iterable[T]:
        if not model.__pydantic_complete__:
            return look(model)
        if model not in seen:
            seen[model] = tuple(look(model))
        return seen[model]

    return known


def name_faults(contract: type[BaseModel], names: Iterable[str]) -> Iterator[Fault]:
    """Yield parameters whose name a method or an attribute of a contract has."""
    for name in names:
        if name == "self" or (name not in _STEPS_BACK and any(_has(base, name) for base in contract.__mro__[1:])):
            yield f"the parameter {name!r} hides an attribute that every contract has", "Give it another name."


def unresolved_faults(model: type[BaseModel]) -> Iterator[Fault]:
    """Yield types of fields that are not defined where the class is defined."""
    for each in _models_from(model):
        try:
            each.model_rebuild()
        except PydanticUndefinedAnnotation as unknown:
            yield (
                f"{each.__name__} has a field of the type {unknown.name!r}, which is not defined there",
                "Define or import it above the class, not under TYPE_CHECKING.",
            )


def parameter_faults(contract: type[BaseModel], base: type[BaseModel]) -> Iterator[Fault]:
    """Yield what is wrong with the fields of `contract`; `base` is the class that all contracts derive from."""
    for key in _OWN_CONFIG:
        if contract.model_config.get(key) != base.model_config.get(key):
            yield (
                f"its configuration sets {key}={contract.model_config.get(key)!r}",
                "Remove it: parameters are strict, finite and frozen. To convert one field, use Field(strict=False).",
            )
    yield from _field_faults(contract)
    yield from _feeding_faults(contract)
    yield from _document_faults(contract, "validation")


def result_faults(result: type[BaseModel]) -> Iterator[Fault]:
    """Yield what is wrong with the fields of a result."""
    if issubclass(result, RootModel):
        yield (
            f"its result {result.__name__} is a RootModel, but a result is a JSON object",
            "Use a BaseModel with a field for the value.",
        )
        return
    yield from _field_faults(result)
    yield from _document_faults(result, "serialization")


def result_examples(result: type[BaseModel]) -> Iterator[tuple[type[BaseModel], int, Any]]:
    """Yield the examples in the configuration of a result, and of the models in it: the model, number, example."""
    for each in _models_from(result):
        extra = each.model_config.get("json_schema_extra")
        given = extra.get("examples") if isinstance(extra, dict) else None
        if isinstance(given, list):
            yield from ((each, index, example) for index, example in enumerate(given))


def _field_faults(model: type[BaseModel]) -> Iterator[Fault]:
    for each in _models_from(model):
        yield from _own_field_faults(each)


@_once
def _own_field_faults(model: type[BaseModel]) -> Iterator[Fault]:
    if model.model_computed_fields and model.model_config.get("extra") == "forbid":
        yield (
            f"{model.__name__} has a computed field, {next(iter(model.model_computed_fields))!r}: written, not read",
            "Make it a property without @computed_field.",
        )
    for name, field in model.model_fields.items():
        yield from _faults_of(f"{model.__name__}.{name}", field)


def _faults_of(path: str, field: FieldInfo) -> Iterator[Fault]:
    if not field.description:
        yield f"the field {path} has no description", 'Add Field(description="...") with range and unit.'
    if field.annotation is Any:
        yield f"the field {path} is of any type, which cannot be described", "Give it a type, or JsonValue."
    if field.alias or field.validation_alias or field.serialization_alias:
        yield (
            f"the field {path} has an alias: it is written under one name and read under another",
            "Remove the alias; give the field the name that clients write.",
        )
    if field.exclude:
        yield f"the field {path} has exclude, so no worker would get it", "Remove exclude, or the field."
    if any(isinstance(leaf, type) and issubclass(leaf, _SECRETS) for leaf in _leaves(field.annotation)):
        yield (
            f"the field {path} is a secret, which would reach the worker as '**********'",
            "Configure a connection on the workers, which the job names: Annotated[ConnectionName, connection(...)].",
        )
    yield from _mark_faults(path, field)
    yield from _default_faults(path, field)


def _mark_faults(path: str, field: FieldInfo) -> Iterator[Fault]:
    leaves = [*field.metadata, *_leaves(field.annotation)]
    for mark in leaves:
        if isinstance(mark, OwnRole) and not any(_is_model(leaf) and issubclass(leaf, Artifact) for leaf in leaves):
            yield (
                f"the field {path} has the role {mark.name!r}, but is not an artifact",
                "Mark an Artifact or a Dataset; a parameter is Annotated[ArtifactUri, FedFromUpstream(...)].",
            )


def _default_faults(path: str, field: FieldInfo) -> Iterator[Fault]:
    if field.is_required() or field.default_factory_takes_validated_data:
        return
    default = field.get_default(call_default_factory=True)
    if field.default_factory is not None and field.get_default(call_default_factory=True) != default:
        yield (
            f"the field {path} has a default that differs each time, so each attempt would get another value",
            "Make the parameter optional, with the default None, and choose the value in the task.",
        )
    if _is_plainly(default, field):
        return
    try:
        checked = TypeAdapter(field.rebuild_annotation()).validate_python(default, strict=True)
    except ValidationError as invalid:
        wrong = invalid.errors(include_url=False)[0]["msg"]
    except PydanticUserError:
        return  # a type without a schema: `_document_faults` says so
    else:
        if checked == default:
            return
        wrong = f"it becomes {checked!r}"
    yield f"the default {default!r} of the field {path} is not valid: {wrong}", "Correct the default."


def _is_plainly(default: Any, field: FieldInfo) -> bool:
    """Return whether a default needs no look at the field's rules: most, and building those takes time."""
    if default is None:
        return type(None) in typing.get_args(field.annotation)
    plain = typing.get_origin(field.annotation) or field.annotation
    return type(default) is plain and not field.metadata and (plain in {str, int, bool} or not default)


def _feeding_faults(contract: type[BaseModel]) -> Iterator[Fault]:
    for name, field in contract.model_fields.items():
        path = f"{contract.__name__}.{name}"
        if any(isinstance(leaf, FedFromUpstream) for leaf in _leaves(field.annotation)):
            yield (
                f"the mark FedFromUpstream of {path} is inside its type, where it has no effect",
                'Put it outside: Annotated[ArtifactUri | None, FedFromUpstream("dataset")].',
            )
        for marker in field.metadata:
            if isinstance(marker, FedFromUpstream):
                fed: Any = [_A_URI] if typing.get_origin(field.annotation) is list else _A_URI
                try:
                    TypeAdapter(field.rebuild_annotation()).validate_python(fed)
                except ValidationError:
                    yield (
                        f"{path} is fed from upstream, but cannot take the uri of an artifact",
                        "Make it an ArtifactUri, or a list of them.",
                    )


def _document_faults(model: type[BaseModel], mode: typing.Literal["validation", "serialization"]) -> Iterator[Fault]:
    for each in _models_from(model):
        if any(isinstance(leaf, type) and leaf not in _DESCRIBED and not _is_model(leaf) for leaf in _leaves_in(each)):
            try:
                each.model_json_schema(mode=mode)  # takes longer than all other checks
            except (PydanticUserError, TypeError, ValueError) as unknown:
                yield (
                    f"{each.__name__} cannot be described by a JSON Schema: {str(unknown).splitlines()[0]}",
                    "Use types that JSON has, or a Pydantic type that says how it is written as JSON.",
                )
        declared: Any = each.model_fields["role"].annotation if issubclass(each, Artifact) else None
        roles = typing.get_args(declared) if typing.get_origin(declared) is typing.Literal else ()
        if unknown_roles := set(roles) - set(typing.get_args(BuiltInRole)):
            yield (
                f"{each.__name__} has the role {min(unknown_roles)!r}, which does not exist",
                f"Use one of {', '.join(typing.get_args(BuiltInRole))}, or Annotated[Artifact, role('acme.picture')].",
            )


def _models_from(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield `model` and the models in its fields, at any depth, each once."""
    seen, ahead = {model}, [model]
    while ahead:
        yield (each := ahead.pop(0))
        for leaf in _leaves_in(each):
            if _is_model(leaf) and leaf not in seen:
                seen.add(leaf)
                ahead.append(leaf)


@_once
def _leaves_in(model: type[BaseModel]) -> Iterator[Any]:
    for field in model.model_fields.values():
        yield from _leaves(field.annotation)


def _leaves(annotation: Any, inside: frozenset[Any] = frozenset()) -> Iterator[Any]:
    """Yield the types in an annotation and the marks on them, also those in data classes and typed dictionaries."""
    if arguments := typing.get_args(annotation):
        if (origin := typing.get_origin(annotation)) is not typing.Annotated:
            yield origin
        for argument in arguments:
            yield from _leaves(argument, inside)
        return
    yield annotation
    has_fields = isinstance(annotation, type) and dataclasses.is_dataclass(annotation)
    if (has_fields or typing.is_typeddict(annotation)) and annotation not in inside:
        for hint in typing.get_type_hints(annotation, include_extras=True).values():
            yield from _leaves(hint, inside | {annotation})


def _is_model(leaf: Any) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(leaf, type) and issubclass(leaf, BaseModel)


def _has(base: type, name: str) -> bool:
    if not _is_model(base):
        return name in vars(base)
    return (name in vars(base) or name in getattr(base, "__class_vars__", ())) and name not in base.model_fields
