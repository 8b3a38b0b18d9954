"""Kernels compiled ahead of time for a GPU that is not there: do they compile, and what do they take of one?

Needs Triton and the tools in its package, no GPU and no driver; not under the interpreter.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from optical_scale.transport.triton.support import interpreted

_INTEGERS = frozenset({"B", "N", "M", "D", "E", "T", "count", "rows", "span", "stride_i", "stride_j"})
_UNALIGNED = frozenset({"B", "count", "stride_j", "unit"})


class Usage(NamedTuple):
    """What a compiled kernel takes of a multiprocessor.

    Attributes:
        registers: of a thread, at most 255.
        stack: bytes of local memory a thread, what does not fit in registers.
        shared: bytes of shared memory a program, at most 227 KiB on Hopper.
        products: "wgmma", "mma" or "fma", the unit that multiplies.
        atomics: atomic instructions, which would make sums depend on who comes first.
    """

    registers: int
    stack: int
    shared: int
    products: str
    atomics: int


def possible() -> bool:
    """Whether kernels can be compiled here."""
    if interpreted():
        return False
    try:
        import triton
    except ImportError:
        return False
    return (_tools(triton) / "ptxas").exists() and (_tools(triton) / "cuobjdump").exists()


def compile_kernel(
    kernel: Any,
    constants: dict[str, Any],
    pointers: dict[str, str],
    *,
    warps: int,
    stages: int = 2,
    capability: int = 90,
) -> Usage:
    """Compile one kernel.

    Args:
        kernel: a function under ``triton.jit``.
        constants: values of its compile-time arguments; those it does not have are ignored.
        pointers: types of arguments, as "*bf16" or "fp32"; others are sizes (int32) or float32 pointers.
        warps: of a program.
        stages: of its pipelined loops.
        capability: 90 for Hopper.

    Returns:
        What it takes.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    kinds = {name: pointers.get(name, "i32" if name in _INTEGERS else "*fp32") for name in names}
    signature = {name: "constexpr" if name in constants else kind for name, kind in kinds.items()}
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(names)
        if signature[name] != "constexpr" and name not in _UNALIGNED
    }
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages}
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(_tools(triton) / "cuobjdump"), "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(part.split(":") for part in usage.split() if part.startswith(("REG:", "STACK:")))
    ptx = compiled.asm["ptx"]
    products = "wgmma" if "wgmma" in ptx else "mma" if "mma.sync" in ptx else "fma"
    atomics = len(re.findall(r"^\s*(?:@%p\d+ )?(?:atom|red)\.", ptx, re.MULTILINE))
    return Usage(int(found["REG"]), int(found["STACK"]), compiled.metadata.shared, products, atomics)


def _tools(triton: Any) -> Path:
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
