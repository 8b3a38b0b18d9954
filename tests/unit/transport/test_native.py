import os
import shutil
import subprocess
import sys

import pytest
import torch

from optical_scale.transport import native, solve
from tests.unit.transport.problems import ragged_tokens

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture
def fresh():
    native.sweeps.cache_clear()
    yield
    native.sweeps.cache_clear()


@needs_compiler
def test_compiled_once_per_version_and_processor(tmp_path):
    first = native.compile_sweeps(tmp_path / "cache")
    stamp = first.stat().st_mtime_ns
    assert native.compile_sweeps(tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == stamp
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


@pytest.mark.parametrize("broken", ["missing", "failing", "forbidden", "unwritable"])
def test_without_a_compiler_the_same_solution_comes_from_pytorch(broken, monkeypatch, tmp_path, fresh):
    batch = ragged_tokens([9, 4], [5, 7])
    expected = solve(*batch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("file" if broken == "unwritable" else "cache")))
    monkeypatch.setenv("CC", {"missing": "no-such-compiler", "failing": "false"}.get(broken, "cc"))
    monkeypatch.setenv("OPTICAL_SCALE_NATIVE", "0" if broken == "forbidden" else "1")
    native.sweeps.cache_clear()
    assert native.sweeps() is None
    got = solve(*batch)
    assert "compiled" not in got.choice.reason
    torch.testing.assert_close(got.f_BN, expected.f_BN, atol=1e-6, rtol=0)


@needs_compiler
def test_exponential_is_as_exact_as_float32_and_keeps_nan(fresh):
    sweeps = native.sweeps()
    values = torch.linspace(-87, 87, 100_001)
    got = values.clone()
    sweeps.exponentiate(got, 1.0)
    exact = values.double().exp()
    assert ((got.double() - exact) / exact).abs().max() < 1.2e-7
    special = torch.tensor([float("nan"), 0.0])
    sweeps.exponentiate(special, 1.0)
    assert special[0].isnan()
    assert special[1] == 1


@needs_compiler
def test_loading_leaves_denormals_alone(tmp_path):
    code = (
        "import torch; from optical_scale.transport import native; assert native.sweeps();"
        "print(float(torch.tensor(1e-40) * 1.0) > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "True"


@needs_compiler
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18, 1e30, 0.0])
def test_unit_rows_of_any_length(scale, fresh):
    x_BTD = torch.randn(2, 3, 37)
    x_BTD[1, 2] = torch.nan
    mask_BT = torch.ones(2, 3, dtype=torch.bool)
    mask_BT[1, 2] = False
    unit_BTD, inverse_BT1 = native.sweeps().unit_rows(x_BTD * scale, mask_BT)
    exact = torch.nn.functional.normalize(x_BTD.double(), dim=-1) * bool(scale)
    torch.testing.assert_close(unit_BTD[mask_BT].double(), exact[mask_BT], atol=2e-7, rtol=0)
    assert (unit_BTD[~mask_BT] == 0).all()
    length = x_BTD[mask_BT].double().norm(dim=-1) * scale
    expected = 1 / length if scale else torch.zeros_like(length)
    torch.testing.assert_close(inverse_BT1[mask_BT][:, 0].double(), expected, rtol=1e-6, atol=0)
