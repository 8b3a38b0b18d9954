"""The compiled sweeps of ``sweep.c``: built on first use with the machine's C compiler, or not at all.

Without a compiler, a writable cache or float32 on a CPU, callers take their PyTorch path and the results agree to
rounding. ``OPTICAL_SCALE_NATIVE=0`` in the environment forbids the compiled path, for comparisons.
"""

import ctypes
import enum
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)
_SOURCE = Path(__file__).with_name("sweep.c")
# Reassociation is what lets sums be vectorised. Not -ffast-math: linked into a library it switches denormals off for
# the whole process, and it would let the compiler assume that NaN does not occur.
_FLAGS = (
    "-O3 -march=native -std=c11 -fPIC -shared -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math "
    "-ffp-contract=fast"
)
if platform.machine() in ("x86_64", "AMD64"):
    # Compilers prefer half of what these processors have; measured 1.2 to 2 times slower.
    _FLAGS += " -mprefer-vector-width=512"


class Mode(enum.IntEnum):
    """What a sweep does with the halves of a kernel's floats; values as in ``sweep.c``."""

    SPLIT = 0
    HALVES = 1
    JOIN = 2


class Sweeps:
    """The functions of ``sweep.c`` on tensors: float32, contiguous, on a CPU.

    Sums run in an order that depends only on the shapes and the number of threads, so that two runs are bitwise equal.
    """

    def __init__(self, library: Path) -> None:
        """Load a compiled library.

        Args:
            library: file made by :func:`compile_sweeps`.
        """
        # ctypes releases the interpreter's lock during a call, so that plain threads run in parallel.
        self._library = ctypes.CDLL(str(library))
        pointer, size, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        self._library.exponentiate.argtypes = [pointer, size, real]
        self._library.sweep_rows.argtypes = [pointer, *[size] * 3, *[pointer] * 5, *[real] * 3]
        self._library.sweep_halves.argtypes = [pointer, *[size] * 3, *[pointer] * 7, real, size]
        self._library.iterate.argtypes = [pointer, *[size] * 3, *[pointer] * 6, real, size]
        self._library.unit_rows.argtypes = [pointer, pointer, size, size, pointer, pointer]
        self._library.pull_back_rows.argtypes = [pointer, pointer, pointer, size, size, pointer]
        self._library.inner_rows.argtypes = [pointer, pointer, size, size, pointer]

    def exponentiate(self, values: Tensor, factor: float) -> None:
        """``values = exp(factor * values)`` in place, for products up to 87 in size."""
        flat = values.view(-1)
        _in_parallel(
            lambda part: self._library.exponentiate(_at(flat[part]), part.stop - part.start, factor),
            _parts(len(flat), 1 << 18),
        )

    def unit_rows(self, x_BTD: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Unit vectors, zero outside the mask whatever is there, and inverse lengths (B, T, 1)."""
        x_BTD = x_BTD.contiguous()
        width, rows = x_BTD.shape[2], x_BTD.shape[0] * x_BTD.shape[1]
        unit_BTD, inverse_BT1 = torch.empty_like(x_BTD), x_BTD.new_empty(*x_BTD.shape[:2], 1)
        x_RD, unit_RD, inverse_R = x_BTD.view(rows, width), unit_BTD.view(rows, width), inverse_BT1.view(rows)
        mask_R = None if mask_BT is None else mask_BT.contiguous().view(rows)

        def run(part: slice) -> None:
            mask = None if mask_R is None else _at(mask_R[part])
            self._library.unit_rows(
                _at(x_RD[part]), mask, part.stop - part.start, width, _at(unit_RD[part]), _at(inverse_R[part])
            )

        _in_parallel(run, _parts(rows, 256))
        return unit_BTD, inverse_BT1

    def inner_rows(self, left_BTD: Tensor, right_BTD: Tensor) -> Tensor:
        """``sum_d left right``, (B, T), in one pass and without a product of their size."""
        inner_BT = left_BTD.new_empty(left_BTD.shape[:2])
        width, inner_R = left_BTD.shape[2], inner_BT.view(-1)
        left_RD, right_RD = left_BTD.view(-1, width), right_BTD.view(-1, width)
        _in_parallel(
            lambda part: self._library.inner_rows(
                _at(left_RD[part]), _at(right_RD[part]), part.stop - part.start, width, _at(inner_R[part])
            ),
            _parts(len(inner_R), 256),
        )
        return inner_BT

    def pull_back_rows(self, product_BTD: Tensor, unit_BTD: Tensor, inverse_BT1: Tensor, inner_BT: Tensor) -> None:
        """``product = -(product - inner unit) inverse`` in place."""
        width, inner_R, inverse_R = unit_BTD.shape[2], inner_BT.view(-1), inverse_BT1.view(-1)
        product_RD, unit_RD = product_BTD.view(-1, width), unit_BTD.view(-1, width)

        def run(part: slice) -> None:
            arrays = (product_RD[part], unit_RD[part], inverse_R[part])
            self._library.pull_back_rows(*map(_at, arrays), part.stop - part.start, width, _at(inner_R[part]))

        _in_parallel(run, _parts(len(inner_R), 256))

    def iterate(
        self,
        K_BNM: Tensor,
        weight_BN: Tensor,
        weight_BM: Tensor,
        u_BN: Tensor,
        v_BM: Tensor,
        power_B: Tensor,
        relaxation: float,
        count: int,
    ) -> None:
        """Iterate on stored kernels, pairs in parallel.

        Args:
            K_BNM: kernels.
            weight_BN: factor of each row's update, zero for rows without mass.
            weight_BM: the same for columns.
            u_BN: row scalings, overwritten; zero where there are none to relax from.
            v_BM: column scalings, overwritten.
            power_B: exponent of each pair's updates, one when balanced.
            relaxation: over-relaxation, one for none.
            count: full iterations.
        """
        B, N, M = K_BNM.shape

        def run(part: slice) -> None:
            scratch_M = K_BNM.new_empty(2 * M)
            arrays = (weight_BN[part], weight_BM[part], u_BN[part], v_BM[part], scratch_M, power_B[part])
            pairs = part.stop - part.start
            self._library.iterate(_at(K_BNM[part]), pairs, N, M, *map(_at, arrays), relaxation, count)

        _in_parallel(run, _parts(B, 1))

    def sweep_rows(
        self,
        K_RM: Tensor,
        weight_R: Tensor,
        v_M: Tensor,
        u_R: Tensor,
        column_M: Tensor,
        scratch_M: Tensor,
        power: float,
        relaxation: float,
        exponent: float,
    ) -> None:
        """Rows of one pair in the calling thread; see ``sweep.c``."""
        R, M = K_RM.shape
        arrays = (weight_R, v_M, u_R, column_M, scratch_M)
        self._library.sweep_rows(_at(K_RM), M, R, M, *map(_at, arrays), power, relaxation, exponent)

    def sweep_halves(
        self,
        K_RM: Tensor,
        weight_R: Tensor,
        v_M: Tensor,
        u_R: Tensor,
        column_2M: Tensor,
        ratio_R: Tensor,
        spare_3M: Tensor,
        power: float,
        mode: Mode,
    ) -> None:
        """Rows of one pair in the calling thread, whose kernel is or becomes halves; see ``sweep.c``."""
        R, M = K_RM.shape
        arrays = (weight_R, v_M, u_R, column_2M[0], column_2M[1], ratio_R, spare_3M)
        self._library.sweep_halves(_at(K_RM), M, R, M, *map(_at, arrays), power, mode)


class Columns:
    """Column sums of one pair while its rows are swept by several threads, each adding to a row of its own."""

    def __init__(self, width: int) -> None:
        """Allocate for pairs with ``width`` columns; only where :func:`sweeps` is not None."""
        compiled = sweeps()
        assert compiled is not None
        self._sweeps, threads = compiled, torch.get_num_threads()
        self._sums_T2M, self._scratch_T3M = torch.zeros(threads, 2, width), torch.empty(threads, 3 * width)

    def start(self) -> None:
        """Forget the last iteration."""
        self._sums_T2M.zero_()

    def sweep(
        self, K_RM: Tensor, weight_R: Tensor, v_M: Tensor, u_R: Tensor, power: float, relaxation: float, exponent: float
    ) -> None:
        """Update u of some rows and add their part of ``K^T u``."""

        def run(part: slice, own: int) -> None:
            sums_M, scratch_M = self._sums_T2M[own, 0], self._scratch_T3M[own]
            rows = (K_RM[part], weight_R[part], v_M, u_R[part])
            self._sweeps.sweep_rows(*rows, sums_M, scratch_M, power, relaxation, exponent)

        self._divide(len(K_RM), run)

    def sweep_halves(
        self, K_RM: Tensor, weight_R: Tensor, v_M: Tensor, u_R: Tensor, ratio_R: Tensor, power: float, mode: Mode
    ) -> None:
        """The same on a kernel that is, becomes or was halves; ``ratio_R`` is written or read."""

        def run(part: slice, own: int) -> None:
            rows = (K_RM[part], weight_R[part], v_M, u_R[part])
            sums_2M, spare_3M = self._sums_T2M[own], self._scratch_T3M[own]
            self._sweeps.sweep_halves(*rows, sums_2M, ratio_R[part], spare_3M, power, mode)

        self._divide(len(K_RM), run)

    def _divide(self, rows: int, run: Callable[[slice, int], None]) -> None:
        step = max(1, -(-rows // len(self._sums_T2M)))
        _in_parallel(lambda part: run(part, part.start // step), _parts(rows, step))

    def total(self, column_M: Tensor) -> None:
        """The sums over all rows swept since :meth:`start`."""
        torch.sum(self._sums_T2M[:, 0], 0, out=column_M)

    def upper_total(self) -> Tensor:
        """The sums of upper halves, which a sweep that splits leaves beside them, (M,)."""
        return self._sums_T2M[:, 1].sum(0)


def usable(*tensors: Tensor) -> bool:
    """Whether the compiled path may take these tensors."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors) and sweeps() is not None


@functools.cache
def sweeps() -> Sweeps | None:
    """The compiled sweeps, or None where they cannot be had; decided once per process."""
    if os.environ.get("OPTICAL_SCALE_NATIVE", "1") == "0":
        return None
    try:
        return Sweeps(compile_sweeps(_cache_folder()))
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.info("transport without compiled sweeps (%s); plain PyTorch is used instead", error)
        return None


def compile_sweeps(folder: Path) -> Path:
    """Compile ``sweep.c`` unless this version was compiled for this processor before.

    Args:
        folder: cache, created if missing.

    Returns:
        The shared library.

    Raises:
        OSError: no compiler, or the folder cannot be written.
        subprocess.SubprocessError: the compiler failed or hung.
    """
    named = shlex.split(os.environ.get("CC", ""))
    compiler = named or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    if not compiler or shutil.which(compiler[0]) is None:
        raise FileNotFoundError("no C compiler")
    # A home folder may be shared by machines with different processors.
    key = hashlib.sha256("\0".join([_SOURCE.read_text("utf-8"), _FLAGS, *compiler, _processor()]).encode()).hexdigest()
    library = folder / f"sweep-{key[:20]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / library.name
        command = [*compiler, *shlex.split(_FLAGS), "-o", str(made), str(_SOURCE), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        # Ranks may compile at once; each rename leaves a whole file.
        made.replace(library)
    return library


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "optical_scale"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.platform()
    return "\n".join(next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags"))


def _at(tensor: Tensor) -> int:
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def _parts(size: int, smallest: int) -> list[slice]:
    """At most one part per thread, none smaller than asked except the last."""
    step = max(smallest, -(-size // torch.get_num_threads()))
    return [slice(start, min(size, start + step)) for start in range(0, size, step)]


def _in_parallel(run: Callable[[slice], None], parts: list[slice]) -> None:
    if len(parts) == 1:
        run(parts[0])
    else:
        list(_pool(torch.get_num_threads(), os.getpid()).map(run, parts))


@functools.lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # The process is part of the key because threads do not survive a fork.
    return ThreadPoolExecutor(threads, thread_name_prefix="transport")
