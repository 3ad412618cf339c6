"""ONNX Runtime and OpenVINO, which serve a network that PyTorch has written down as ONNX."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import numpy as np

from .measure import Contender, Offer
from .networks import Batch, Weights


def onnx_of(weights: Weights, batch: Batch) -> bytes:
    """The network with its weights, for batches of this size."""
    import torch

    from .torch_peer import model_with

    memory = io.BytesIO()
    model, x = model_with(weights).eval(), torch.from_numpy(batch.x_first)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the newer exporter needs more packages and writes the same
        torch.onnx.export(model, (x,), memory, dynamo=False, input_names=["x"])
    return memory.getvalue()


def onnxruntime_answer(weights: Weights, batch: Batch, threads: int) -> Contender:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        onnx_of(weights, batch), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": batch.x_first}
    return Contender("onnxruntime", lambda: session.run(None, feed)[0], np.asarray)


def openvino_answer(weights: Weights, batch: Batch, threads: int) -> Contender:
    # Without this package OpenVINO tells its makers nothing; with it, from a fork of ours.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = core.read_model(io.BytesIO(onnx_of(weights, batch)))
    request = core.compile_model(model, "CPU", options).create_infer_request()
    x = batch.x_first

    def step() -> np.ndarray:
        request.infer({0: x}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return Contender("openvino", step, np.asarray)


def offers(weights: Weights, batch: Batch, threads: int) -> list[Offer]:
    return [
        ("onnxruntime", lambda: onnxruntime_answer(weights, batch, threads)),
        ("openvino", lambda: openvino_answer(weights, batch, threads)),
    ]
