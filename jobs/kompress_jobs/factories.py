"""`python://package.module:factory`: the user's own code, found only below the packages that the image allows.

A bundle in a bucket may name a factory too, so the environment variable KOMPRESS_FACTORIES, which belongs to the image
(or to the user's shell), is the only thing that decides what is imported.
"""

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from kompress_api.contract import ENV_FACTORIES
from kompress_api.errors import FactoryNotAllowed, InvalidManifest, UnknownModel


def resolve(address: str, *, field: str) -> Callable[..., Any]:
    """The callable behind `package.module:factory` (without `python://`).

    Raises FactoryNotAllowed outside of KOMPRESS_FACTORIES, UnknownModel when it is not there.
    """
    module, colon, name = address.partition(":")
    if not colon or not name.isidentifier():
        raise InvalidManifest(f"python://{address} names no factory", hint="write python://package.module:factory", field=field)
    allowed = [entry.strip() for entry in os.environ.get(ENV_FACTORIES, "").split(",") if entry.strip()]
    if not any(module == entry or module.startswith(f"{entry}.") for entry in allowed):
        package = module.partition(".")[0]
        raise FactoryNotAllowed(
            f"python://{address} is outside of the packages that may be imported ({', '.join(allowed) or 'none'})",
            hint=f"set it in the image (`ENV {ENV_FACTORIES}={package}`) or in your shell (`export {ENV_FACTORIES}={package}`)",
            field=field,
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UnknownModel(
            f"python://{address} can't be imported: {error}", hint="check the name, and that the image holds the package", field=field
        ) from error
    if not callable(found):
        raise UnknownModel(f"python://{address} is no callable", hint="name a function or class that returns the object", field=field)
    return found  # type: ignore[no-any-return]


def call(factory: Callable[..., Any], arguments: Mapping[str, Any], offered: Mapping[str, Any], *, field: str) -> Any:
    """Call with the manifest's arguments, and with those of `offered` that the signature asks for.

    Raises InvalidManifest when the arguments do not fit the signature.
    """
    signature = inspect.signature(factory)
    takes = {name: value for name, value in offered.items() if name in signature.parameters} | dict(arguments)
    try:
        signature.bind(**takes)
    except TypeError as error:
        raise InvalidManifest(
            f"the arguments do not fit {factory.__name__}{signature}: {error}", hint="change arguments", field=field
        ) from error
    return factory(**takes)
