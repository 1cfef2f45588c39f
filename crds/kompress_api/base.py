"""The base of all models: strict, immutable, camelCase outside, and rules that hold in the API server and here alike.

A `Rule` is one statement about an object, told twice: in CEL for the CRD, and as a Python predicate for the command line
and the operator. Both carry the same message, so that `kubectl apply` and `kompress validate` answer in the same words;
`tests/manifests/bad.yaml` is the table for both.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError


@dataclasses.dataclass(frozen=True)
class Rule:
    """`holds(model)` and `cel` say the same; `message(model)` and `message_cel` (an expression) too.

    `field` is the child at fault, by its name in a manifest, appended to the error's path (CEL's `fieldPath`).
    """

    cel: str
    message: str | Callable[[Any], str]
    holds: Callable[[Any], bool] = lambda _: True
    message_cel: str = ""
    field: str = ""

    def validation(self) -> dict[str, str]:
        """As an entry of x-kubernetes-validations."""
        entry = {"rule": self.cel}
        if self.message_cel:
            entry["messageExpression"] = self.message_cel
        if isinstance(self.message, str):
            entry["message"] = self.message
        if self.field:
            entry["fieldPath"] = f".{self.field}"
        return entry


def field_name(attribute: str) -> str:
    """`from_` -> `from`, `learning_rate` -> `learningRate`."""
    return to_camel(attribute.rstrip("_"))


class Model(BaseModel):
    """Base of everything in a manifest, a status or a message."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=field_name,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    transitions: ClassVar[tuple[Rule, ...]] = ()
    """Rules about a change (CEL's `oldSelf`), which only the API server can judge."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.rules or cls.transitions:
            target = handler.resolve_ref_schema(schema)
            target["x-kubernetes-validations"] = [rule.validation() for rule in (*cls.rules, *cls.transitions)]
        return schema

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        broken = [
            (rule.field, rule.message if isinstance(rule.message, str) else rule.message(self))
            for rule in self.rules
            if not rule.holds(self)
        ]
        if broken:
            raise PydanticCustomError("rules", "{text}", {"text": "; ".join(text for _, text in broken), "broken": broken})
        return self

    def dump(self) -> dict[str, Any]:
        """As it stands in a manifest: camelCase, JSON types, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
