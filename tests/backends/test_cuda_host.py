"""The host side of the CUDA backend, on a stand-in for CuPy: see fake_cupy.py."""

import importlib.util

import numpy as np
import pytest
from backends import fake_cupy

import deepkit as dk
from deepkit.backends import get, why_not
from deepkit.testing import check_backend

if "cuda-sim" not in dk.devices():
    pytest.skip("no C++ compiler here", allow_module_level=True)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("DEEPKIT_CUDA_SYNC", raising=False)
    return fake_cupy.install(monkeypatch)


OPS = ["add", "where", "relu", "gelu_dx", "clip", "astype", "fill_", "accumulate_"]


def test_kernels_keep_the_laws_there_too(machine):
    report = check_backend("cuda", OPS)
    assert report.ops == len(OPS)
    assert machine.loaded


def test_a_captured_step_is_one_graph(machine):
    x = dk.tensor(np.arange(6, dtype=np.float32), device="cuda")

    @dk.capture
    def step(v):
        return (v * 2 + x).relu()

    for sign in (1, -1, 3):
        given = dk.tensor(np.full(6, sign, np.float32), device="cuda")
        before = len(machine.loaded)
        y = step(given)
        assert np.array_equal(y.numpy(), np.maximum(2 * sign + x.numpy(), 0))
        assert sign == 1 or len(machine.loaded) == before
    waited = machine.waited
    step(given)
    assert machine.waited == waited  # nothing in a step waits for the device


def test_binaries_are_kept_and_damaged_ones_made_anew(machine, monkeypatch, tmp_path):
    x = dk.tensor([1.0, -2.0], device="cuda")
    assert x.relu().numpy().tolist() == [1, 0]
    (kept,) = (tmp_path / "cuda" / "sm_90a").glob("elementwise-float-*.cubin")
    kept.write_bytes(b"damaged")
    fake_cupy.install(monkeypatch)
    x = dk.tensor([1.0, -2.0], device="cuda")
    assert x.relu().numpy().tolist() == [1, 0]
    assert kept.read_bytes().startswith(b"sim elementwise")


# --- every way it can fail to be there ------------------------------------------------------------


def test_without_cupy(monkeypatch):
    from deepkit import backends
    from deepkit.backends.cuda import device

    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    assert "needs CuPy: pip install cupy-cuda13x" in why_not("cuda")


def test_without_a_driver(machine):
    machine.driver_version = 0
    assert why_not("cuda") == "device 'cuda' needs an NVIDIA GPU and its driver; none was found"


def test_with_an_old_driver(machine):
    machine.driver_version, machine.runtime_version = 11040, 13000
    assert why_not("cuda").startswith(
        "device 'cuda': the driver is for CUDA 11.4, but CuPy here is for 13.0: install a newer"
    )


def test_without_a_gpu_of_that_number(machine):
    assert "there are 1, numbered from 0" in why_not("cuda:1")
    machine.count = 0
    assert why_not("cuda:0") == "device 'cuda' does not exist: of GPUs, there is none"
    with pytest.raises(dk.DeviceError, match="GPUs are 'cuda', 'cuda:0'"):
        get("cuda:one")


def test_without_a_compiler(machine, monkeypatch):
    from deepkit.backends.cuda import nvrtc

    monkeypatch.undo()
    fake_cupy.install(monkeypatch)
    monkeypatch.setattr(nvrtc, "architectures", lambda: nvrtc.library() and [])
    monkeypatch.setattr(nvrtc, "load", lambda name: None)
    nvrtc.library.cache_clear()
    try:
        assert "NVRTC, the run-time compiler of CUDA, was not found" in why_not("cuda")
    finally:
        nvrtc.library.cache_clear()


def test_on_a_gpu_that_the_compiler_no_longer_knows(machine, monkeypatch):
    from deepkit.backends.cuda import nvrtc

    monkeypatch.setattr(nvrtc, "architectures", lambda: [100, 120])
    assert "no longer compiles for this GPU, which has compute capability 9.0" in why_not("cuda")


def test_out_of_memory(machine):
    x = dk.tensor(np.zeros((1000, 1), np.float32), device="cuda")
    machine.memory = 1 << 20
    with pytest.raises(MemoryError) as caught:
        x + x.reshape((1, 1000))
    assert str(caught.value) == (
        "add: device 'cuda' has no memory left: 4,000,000 bytes were asked for, of 1,048,576 there "
        "are 262,144 free"
    )
    assert (x + x).numpy().sum() == 0  # and it goes on


def test_an_illegal_address_ends_this_device_and_no_other(machine):
    x = dk.tensor([1.0, 2.0], device="cuda")
    y = (x + x).relu()
    machine.failure = "cudaErrorIllegalAddress: an illegal memory access was encountered"
    with pytest.raises(dk.DeviceError, match="did what it must not: one of add, relu; no more"):
        y.numpy()
    machine.failure = None
    with pytest.raises(dk.DeviceError, match="DEEPKIT_CUDA_SYNC=1 waits for each kernel"):
        x + x
    assert (dk.tensor([1.0]) + 1).item() == 2


def test_each_kernel_is_waited_for_if_asked(machine, monkeypatch):
    monkeypatch.setenv("DEEPKIT_CUDA_SYNC", "1")
    x = dk.tensor([1.0, 2.0], device="cuda")
    machine.failure = "cudaErrorIllegalAddress: an illegal memory access was encountered"
    with pytest.raises(dk.DeviceError, match="it must not: relu; no more can run"):
        x.relu()


# --- the real CuPy, where it is installed ---------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_the_stand_in_has_the_signatures_of_cupy():
    import inspect

    import cupy

    real_cuda, ours = cupy.cuda, fake_cupy
    pairs = [
        (getattr(real_cuda.driver, n), getattr(ours._Driver, n))
        for n in ("launchKernel", "moduleLoadData", "moduleGetFunction", "funcSetAttribute")
    ]
    copy = "copy_from_device_async"
    pairs += [
        (cupy.ndarray.set, ours.ndarray.set),
        (cupy.ndarray.get, ours.ndarray.get),
        (getattr(real_cuda.MemoryPointer, copy), getattr(ours.MemoryPointer, copy)),
        (real_cuda.Stream.begin_capture, ours.Stream.begin_capture),
        (real_cuda.Graph.launch, ours.Graph.launch),
        (real_cuda.Event.record, ours.Event.record),
        (real_cuda.get_elapsed_time, ours.get_elapsed_time),
    ]
    for real, stand_in in pairs:
        said = real.__doc__.split("(", 1)[1].split(")")[0]
        names = [part.split("=")[0].split()[-1] for part in said.split(",")]
        mine = inspect.signature(stand_in).parameters
        assert [n for n in names if n != "self"] == [n for n in mine if n != "self"], real
    attribute = cupy.cuda.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert attribute == fake_cupy._Driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    for name in ("is_capturing", "synchronize", "end_capture", "ptr"):
        assert hasattr(cupy.cuda.Stream, name) or name == "ptr"
    for name in (
        "getDeviceCount",
        "getDevice",
        "setDevice",
        "free",
        "memGetInfo",
        "getDeviceProperties",
    ):
        assert hasattr(cupy.cuda.runtime, name)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_without_a_driver_is_one_sentence():
    reason = why_not("cuda")
    assert reason is None or reason.count("\n") == 0


def test_launches_of_other_threads_stay_out_of_a_capture(machine):
    """All threads share one stream: a capture would take in whatever they launch meanwhile."""
    import threading

    x = dk.tensor(np.arange(8, dtype=np.float32), device="cuda")
    stop, wrong = threading.Event(), []

    def launches():
        while not stop.is_set():
            y = (x * x).numpy()
            if not np.array_equal(y, x.numpy() ** 2):
                wrong.append(y)

    other = threading.Thread(target=launches)
    other.start()
    try:
        for i in range(20):
            step = dk.capture(lambda v, i=i: (v + float(i)).relu())
            for _ in range(2):
                assert np.array_equal(step(x).numpy(), np.arange(8) + i)
    finally:
        stop.set()
        other.join()
    assert wrong == []


def test_float16_is_never_left_to_cublas(machine, monkeypatch):
    """It scales no factors; our own kernels do."""
    from deepkit.backends.cuda import products

    get("cuda").driver.__dict__["blas"] = object()
    x = dk.tensor(np.zeros((1, 1), np.float32), device="cuda").array
    for precision, wanted in (("float32", "library"), ("tf32", "library"), ("float16", "wgmma")):
        task = products.Task(512, 512, 512, precision=precision)
        assert products.choose(task, x) == wanted
