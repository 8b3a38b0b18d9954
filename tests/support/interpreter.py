"""Triton's interpreter, with its language searched once."""

import functools
import inspect

from triton.language.core import is_builtin
from triton.runtime import interpreter


def search_once() -> None:
    """Remember which members of Triton's language the interpreter replaces.

    It looks through all of them at every call of a device function, which took nearly half of the tests' time. What it
    replaces, and with what, stays the same: a member that has been replaced already is no builtin and left alone.
    """

    @functools.cache
    def builtins(package: object) -> list[str]:
        return [name for name, member in inspect.getmembers(package) if is_builtin(member)]

    def patch(package: object, builder: object, scope: object) -> None:
        for name in builtins(package):
            if is_builtin(member := getattr(package, name)):
                interpreter._patch_attr(package, name, member, builder, scope)

    interpreter._patch_builtin = patch
