"""What the compiler says of kernels, read and judged; `make gpu-compile` compiles all of them."""

import pytest

from bench.gpu import resources
from deepkit import DeviceError
from deepkit.backends.cuda import nvrtc, sources

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'deepkit_good' for 'sm_80'
ptxas info    : Function properties for deepkit_good
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 412 bytes cmem[0]
ptxas info    : Compiling entry function 'deepkit_bad' for 'sm_80'
ptxas info    : Function properties for deepkit_bad
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 412 bytes cmem[0]
"""


def test_the_log_is_read():
    found = nvrtc.resources(LOG)
    assert found == {
        "good": nvrtc.Resources(40, 0, 0, 1024),
        "bad": nvrtc.Resources(255, 16, 20, 0),
    }


def test_spills_and_what_grew_are_findings():
    def table(*kernel):
        return {"conv T=float": {"sm_80": {"k": list(kernel)}}}

    assert list(resources.findings(table(40, 0, 0, 64), table(40, 0, 0, 64))) == []
    assert list(resources.findings(table(38, 0, 0, 64), table(40, 0, 0, 64))) == []
    (more,) = resources.findings(table(41, 0, 0, 64), table(40, 0, 0, 64))
    assert more.startswith("k of conv T=float on sm_80: 41 registers")
    (spilled,) = resources.findings(table(40, 8, 4, 64), table(40, 8, 4, 64))
    assert "4 bytes spilled, 8 bytes of stack" in spilled
    (new,) = resources.findings(table(40, 0, 0, 64), {})
    assert new == "k of conv T=float on sm_80 is not in the table"


def test_labels_are_read_back():
    for case in [
        ("conv", (("T", "float"),)),
        ("elementwise_astype", (("T", "unsigned char"), ("S", "signed char"))),
        ("linear_tensor", (("T", "float"), ("PRECISION", "2"))),
    ]:
        assert resources.parse(resources.label(*case)) == case


def test_occupancy():
    assert resources.occupancy(32, 256) == 1.0
    assert resources.occupancy(128, 256) == 0.25
    assert resources.occupancy(168, 256) == 0.125


def test_every_kernel_of_the_sources_has_a_signature():
    for stem in sources.stems():
        text = sources.source(stem).text
        assert "#include" not in text
        assert sources.source(stem).kernels, f"{stem}.cu has no kernel"


@pytest.fixture
def compiler():
    try:
        nvrtc.library()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("compiler")
def test_a_file_compiles_without_a_driver(tmp_path):
    path = tmp_path / "double_it.cu"
    path.write_text(
        '#include "common.cuh"\nKERNEL(double_it)(T* y, i64 n) { GRID_LOOP(i, n) y[i] *= 2; }\n'
    )
    made = nvrtc.compile_file(str(path), (("T", "float"),), "sm_80")
    assert made.image.startswith(b"\x7fELF")
    (found,) = nvrtc.resources(made.log).values()
    assert found.registers > 0
    assert found.spills == 0
    assert b".target sm_80" in nvrtc.compile_file(str(path), (("T", "float"),), "compute_80").image


@pytest.mark.usefixtures("compiler")
def test_a_file_that_does_not_compile_says_where(tmp_path):
    path = tmp_path / "wrong.cu"
    path.write_text('#include "common.cuh"\n\nKERNEL(wrong)(T* y) { y[0] = nothing; }\n')
    with pytest.raises(RuntimeError, match=r"wrong\.cu does not compile for sm_80: wrong\.cu\(3\)"):
        nvrtc.compile_file(str(path), (("T", "float"),), "sm_80")


@pytest.mark.usefixtures("compiler")
def test_what_a_gpu_is_compiled_for():
    assert nvrtc.target(90) == "sm_90a"
    assert nvrtc.target(80) == "sm_80"
    assert nvrtc.target(999) == f"compute_{nvrtc.architectures()[-1]}"
    with pytest.raises(DeviceError, match=r"no longer compiles for .* capability 3\.5"):
        nvrtc.target(35)
