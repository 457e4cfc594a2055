"""Our published model as an ONNX file, made from its weights: ``engine_onnx.py FOLDER``, after engine_model.py.

It writes ``model.onnx``: the same inputs and outputs and, node by node, the same function.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

OPSET = 17


class Graph:
    """Nodes and constants in the making."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any) -> str:
        """Add a constant; returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(values), f"constant{len(self.constants)}"))
        return str(self.constants[-1].name)

    def node(self, operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        output = output or f"{operation}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output

    def dense(self, values: str, kernel: Any, bias: Any) -> str:
        """Add a dense layer."""
        return self.node("Gemm", values, self.constant(kernel), self.constant(bias))


def build(layers: list[dict[str, str]], weights: dict[str, Any]) -> Any:
    """Build the model. Keras has the channels last and ONNX first, which reorders kernels and what is flattened."""
    graph = Graph()
    pixels = graph.node("Cast", "images", to=TensorProto.FLOAT)
    pixels = graph.node("Reshape", pixels, graph.constant(np.array([-1, 1, 28, 28])))
    values, responses, channels = graph.node("Mul", pixels, graph.constant(np.float32(1 / 255))), [], 1
    for layer in layers:
        if layer["kind"] == "convolution":
            kernel, bias = weights[f"{layer['name']}/0"], weights[f"{layer['name']}/1"]
            channels, pad = kernel.shape[3], kernel.shape[0] // 2 if layer["padding"] == "same" else 0
            kernel = graph.constant(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            values = graph.node("Relu", graph.node("Conv", values, kernel, graph.constant(bias), pads=[pad] * 4))
            responses.append(graph.node("Flatten", graph.node("GlobalAveragePool", values)))
        elif layer["kind"] == "pooling":
            values = graph.node("MaxPool", values, kernel_shape=[2, 2], strides=[2, 2])
    kernel = weights["logits/0"]
    side = round((len(kernel) / channels) ** 0.5)
    kernel = kernel.reshape(side, side, channels, 10).transpose(2, 0, 1, 3).reshape(-1, 10)
    logits = graph.dense(graph.node("Flatten", values), kernel, weights["logits/1"])
    graph.node("Softmax", logits, output="probabilities", axis=1)
    texture = graph.node("Sqrt", graph.node("Concat", *responses, axis=1))
    whitened = graph.dense(texture, weights["whiten/0"], weights["whiten/1"])
    facts = graph.node("Concat", graph.node("Mul", whitened, whitened), whitened, logits, axis=1)
    costs = graph.dense(facts, weights["cost/0"], weights["cost/1"])
    graph.node("ReduceMin", costs, output="strangeness", axes=[1], keepdims=0)
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 28, 28])
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        helper.make_tensor_value_info("strangeness", TensorProto.FLOAT, ["batch"]),
    ]
    drawn = helper.make_graph(graph.nodes, "published", [images], outputs, graph.constants)
    return helper.make_model(drawn, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def main(folder: Path) -> None:
    """Write the file."""
    with np.load(folder / "layers.npz", allow_pickle=False) as weights:
        model = build(json.loads((folder / "layers.json").read_text()), dict(weights))
    checker.check_model(model)
    save(model, str(folder / "model.onnx"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
