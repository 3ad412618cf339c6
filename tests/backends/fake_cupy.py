"""What deepkit uses of CuPy, in host memory, with the simulator in place of the GPU.

So the host side of the CUDA backend, its packing of arguments, its graphs and its errors run where
no GPU is.  Signatures are CuPy 14's; `test_cuda_host.py` compares them with the real one.
"""

import ctypes
import sys
import time
import types

import numpy as np

from deepkit.backends import get

state = types.SimpleNamespace()


def reset():
    """A machine with one GPU of compute capability 9.0, and a driver of CUDA 13."""
    state.__dict__.update(
        driver_version=13000, runtime_version=13000, count=1, failure=None, memory=1 << 40,
        functions={}, device=0, loaded=[], captured=None, waited=0,
    )  # fmt: skip


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class MemoryPointer:
    def __init__(self, ptr):
        self.ptr = ptr

    def copy_from_device_async(self, src, size, stream=None):
        def copy(to=self.ptr, start=src.ptr):
            ctypes.memmove(to, start, size)

        stream._go(copy)


class ndarray:
    def __init__(self, host):
        self.host = host
        self.shape, self.dtype, self.size = host.shape, host.dtype, host.size
        self.nbytes, self.ndim = host.nbytes, host.ndim
        self.data = MemoryPointer(host.__array_interface__["data"][0])
        self.device = types.SimpleNamespace(id=state.device)

    def __getitem__(self, part):
        return ndarray(self.host[part])

    def view(self, dtype):
        return ndarray(self.host.view(dtype))

    def reshape(self, shape):
        return ndarray(self.host.reshape(shape))

    def set(self, arr, stream=None):
        assert isinstance(arr, np.ndarray)
        assert arr.flags.c_contiguous
        assert arr.dtype == self.dtype
        assert arr.shape == self.shape
        if state.captured is not None:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: no copies from the host")
        self.host[...] = arr

    def get(self, stream=None, order="C", out=None, blocking=True):
        stream.synchronize()
        return self.host.copy()


class Graph:
    def __init__(self, work):
        self.work = work

    def launch(self, stream=None):
        for one in self.work:
            stream._go(one)


class Stream:
    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.ptr = 7

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def begin_capture(self, mode=None):
        assert state.captured is None
        state.captured = []

    def end_capture(self):
        work, state.captured = state.captured, None
        return Graph(work)

    def is_capturing(self):
        return state.captured is not None

    def synchronize(self):
        state.waited += 1
        if state.failure:
            raise CUDARuntimeError(state.failure)

    def _go(self, work):
        if state.captured is not None:
            state.captured.append(work)
        else:
            work()


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        pass

    def record(self, stream=None):
        assert stream.ptr == 7
        self.time = time.perf_counter()

    def synchronize(self):
        pass


def get_elapsed_time(start_event, end_event):
    return 1000 * (end_event.time - start_event.time)


class _Driver:
    CUDADriverError = CUDADriverError
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8

    @staticmethod
    def moduleLoadData(image):
        if not image.startswith(b"sim "):
            raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid")
        state.loaded.append(image)
        return len(state.loaded)

    @staticmethod
    def moduleGetFunction(module, funcname):
        stem, *named = state.loaded[module - 1].decode().removeprefix("sim ").split("\n")
        kinds = tuple(tuple(n.split("=")) for n in named)
        run = get("cuda-sim").driver.function(stem, funcname.removeprefix("deepkit_"), kinds)
        state.functions[1000 + len(state.functions)] = run
        return 999 + len(state.functions)

    @staticmethod
    def funcSetAttribute(f, attribute, value):
        assert attribute == 8
        assert value <= 227 * 1024

    @staticmethod
    def launchKernel(
        f, grid_dim_x, grid_dim_y, grid_dim_z, block_dim_x, block_dim_y, block_dim_z,
        shared_mem_bytes, stream, kernel_params, extra,
    ):  # fmt: skip
        assert stream == 7
        assert extra == 0
        run, library = state.functions[f]
        grid = (ctypes.c_uint * 3)(grid_dim_x, grid_dim_y, grid_dim_z)
        block = (ctypes.c_uint * 3)(block_dim_x, block_dim_y, block_dim_z)

        def work():
            if run(ctypes.c_void_p(kernel_params), grid, block, shared_mem_bytes, 0):
                raise CUDADriverError(library.deepkit_message().decode())

        Stream()._go(work)


class _Runtime:
    CUDARuntimeError = CUDARuntimeError

    @staticmethod
    def driverGetVersion():
        return state.driver_version

    @staticmethod
    def runtimeGetVersion():
        return state.runtime_version

    @staticmethod
    def getDeviceCount():
        if state.driver_version < 12000:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: the driver is insufficient")
        return state.count

    @staticmethod
    def setDevice(device):
        state.device = device

    @staticmethod
    def getDevice():
        return state.device

    @staticmethod
    def getDeviceProperties(device):
        return {"name": b"Stand-in of a GPU"}

    @staticmethod
    def free(ptr):
        assert ptr == 0

    @staticmethod
    def memGetInfo():
        return state.memory // 4, state.memory


class Device:
    def __init__(self, device=None):
        self.compute_capability = "90"


def empty(shape, dtype=float, order="C"):
    host = np.empty(shape, dtype)
    if host.nbytes > state.memory:
        raise OutOfMemoryError
    host.reshape(-1).view(np.uint8)[...] = 0xFF
    return ndarray(host)


class _Pool:
    def free_bytes(self):
        return 0


def get_default_memory_pool():
    return _Pool()


def module():
    """A module `cupy`, to be put into sys.modules."""
    made = types.ModuleType("cupy")
    made.__spec__ = types.SimpleNamespace(name="cupy")
    made.ndarray, made.empty = ndarray, empty
    made.get_default_memory_pool = get_default_memory_pool
    made.cuda = types.SimpleNamespace(
        driver=_Driver, runtime=_Runtime, Stream=Stream, Graph=Graph, Device=Device,
        MemoryPointer=MemoryPointer, Event=Event, get_elapsed_time=get_elapsed_time,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )  # fmt: skip
    return made


def install(monkeypatch):
    """deepkit finds this in place of CuPy, and a compiler whose binaries are names."""
    from deepkit import backends
    from deepkit.backends.cuda import launch, nvrtc

    reset()
    monkeypatch.setitem(sys.modules, "cupy", module())
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    monkeypatch.setattr(nvrtc, "architectures", lambda: [80, 90])
    monkeypatch.setattr(nvrtc, "compile_file", _compiled)
    monkeypatch.setattr(
        backends, "_made", {k: v for k, v in backends._made.items() if "cuda" not in k}
    )
    monkeypatch.setattr(launch, "_drivers", [])
    get("cuda-sim")
    return state


def _compiled(stem, kinds, arch):
    from deepkit.backends.cuda.nvrtc import Binary

    assert arch == "sm_90a"
    return Binary("\n".join([f"sim {stem}", *[f"{k}={v}" for k, v in kinds]]).encode(), "")
