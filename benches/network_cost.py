#!/usr/bin/env python3
"""Arithmetic and memory traffic of a model at given sizes, from its ONNX file: network_cost.py MODEL [SIZE ...]

Counts 2 operations a multiply-add in convolutions (all else is below 1 %), and the bytes every convolution must read and write at 16 and
32 bits when nothing stays in a cache: input + weights + output. `fused` counts each activation once written and once read per consumer,
which is the same sum; a GPU with an L2 cache of that size moves less. Needs onnx.
"""
import sys

import onnx
from onnx import shape_inference


def cost(path, size):
    model = onnx.load(path)
    for port in list(model.graph.input) + list(model.graph.output):
        for dim, value in zip(port.type.tensor_type.shape.dim, (1, None, size, size)):
            if value:
                dim.Clear()
                dim.dim_value = value
    model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = model.graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in list(graph.value_info) + list(graph.input) + list(graph.output)}
    weights = {t.name: list(t.dims) for t in graph.initializer}
    volume = lambda shape: __import__("math").prod(shape)
    flops = elements = parameters = 0
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        kernel, out, into = weights[node.input[1]], shapes[node.output[0]], shapes[node.input[0]]
        flops += 2 * volume(out) * volume(kernel[1:])
        elements += volume(into) + volume(out) + volume(kernel)
        parameters += volume(kernel)
    return flops, elements, parameters


if __name__ == "__main__":
    path, sizes = sys.argv[1], [int(s) for s in sys.argv[2:]] or [256, 640, 1024]
    print(f"{'size':>6} {'GFLOP':>8} {'MB at 32 bit':>13} {'MB at 16 bit':>13} {'FLOP a byte (16)':>17}")
    for size in sizes:
        flops, elements, parameters = cost(path, size)
        print(f"{size:>6} {flops / 1e9:>8.2f} {elements * 4 / 1e6:>13.1f} {elements * 2 / 1e6:>13.1f} {flops / (elements * 2):>17.1f}")
    print(f"{parameters} weights in convolutions")
