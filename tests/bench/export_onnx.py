"""SmolLM2 (any GGUF file of the llama architecture) as ONNX, with every attention pattern among the outputs.

What `cargo xtask bench --peers` gives to onnxruntime-web. The graph is written by hand, so that it does what Headlight does
and no more, and in the form that onnxruntime is fast at:

- weights are dequantised to f32 and lie as constant right factors of MatMul, which onnxruntime packs once;
- grouped heads are rows of one product, so that keys and values are never repeated;
- 1 / sqrt(d_head) is part of w_q, and w_q and w_k are brought back from GGUF's order to rotation by halves;
- logits are of the last position alone, and the last layer's values, MLP and residual stream too.

Input `ids` [pos]; outputs `logits` [d_vocab] and `pattern.LAYER` [head, query_pos, key_pos].

    python tests/bench/export_onnx.py --model smollm2.gguf --output smollm2.onnx --int8 smollm2-int8.onnx --check run.json

`--int8` also writes what onnxruntime's `quantize_dynamic` makes of it by default: a scale a matrix, activations as they come.
`--check run.json` compares the f32 export with what `headlight run --top 50` printed, and prints the largest difference.
"""

import argparse
import json
import logging

import numpy as np
import onnx
from gguf import GGUFReader, dequantize
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--output", required=True, help="where the f32 export goes")
    parser.add_argument("--int8", help="where the export with 8-bit weights goes")
    parser.add_argument("--check", help="what `headlight run --top 50` printed")
    args = parser.parse_args()
    onnx.save(export(GGUFReader(args.model)), args.output)
    if args.int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # It warns of every tensor whose type it cannot tell, which its default below is for.
        logging.disable(logging.WARNING)
        quantize_dynamic(
            args.output,
            args.int8,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QUInt8,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    if args.check:
        files = {"f32": args.output} | ({"int8": args.int8} if args.int8 else {})
        run = json.load(open(args.check))
        print(json.dumps({name: largest_difference(file, run) for name, file in files.items()}))


class Graph:
    """Nodes and constants; every method gives the name of what it adds."""

    def __init__(self):
        self.nodes, self.constants, self.n_names = [], [], 0

    def constant(self, value, name=None):
        name = name or self.fresh("constant")
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def ints(self, *values):
        return self.constant(np.array(values, dtype=np.int64))

    def op(self, kind, *inputs, name=None, **attributes):
        name = name or self.fresh(kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def fresh(self, kind):
        self.n_names += 1
        return f"{kind}.{self.n_names}"


def export(gguf):
    """The graph of one forward pass."""
    field = lambda name: gguf.fields[f"llama.{name}"].contents()
    tensors = {tensor.name: tensor for tensor in gguf.tensors}
    weight = lambda name: dequantize(tensors[name].data, tensors[name].tensor_type).astype(np.float32)
    n_layers, n_ctx = field("block_count"), field("context_length")
    n_heads, n_kv_heads = field("attention.head_count"), field("attention.head_count_kv")
    d_model = field("embedding_length")
    d_head = d_model // n_heads
    n_grouped = n_heads // n_kv_heads
    assert field("rope.dimension_count") == d_head, "only whole heads are rotated here"

    graph = Graph()
    op, ints = graph.op, graph.ints
    matmul = lambda x, w: op("MatMul", x, graph.constant(w.T))

    def rms_norm(x, name):
        # onnxruntime's own name for it, and what its optimiser makes of the single steps.
        scale = graph.constant(weight(name))
        return op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=field("attention.layer_norm_rms_epsilon"))

    def by_halves(w, heads):
        return w.reshape(heads, d_head // 2, 2, d_model).swapaxes(1, 2).reshape(heads * d_head, d_model)

    def rotate(x):
        first, second = graph.fresh("first"), graph.fresh("second")
        halves = ints(d_head // 2, d_head // 2)
        graph.nodes.append(helper.make_node("Split", [x, halves], [first, second], axis=-1))
        mul = lambda a, b: op("Mul", a, b)
        turned = op("Sub", mul(first, cos), mul(second, sin)), op("Add", mul(second, cos), mul(first, sin))
        return op("Concat", *turned, axis=-1)

    def last_row(x, axis):
        return op("Slice", x, ints(-1), ints(np.iinfo(np.int64).max), ints(axis))

    w_e = weight("token_embd.weight")
    resid = op("Gather", graph.constant(w_e, "w_e"), "ids")
    n_pos = op("Shape", "ids")
    frequencies = field("rope.freq_base") ** (-np.arange(0, d_head, 2, dtype=np.float64) / d_head)
    angles = np.outer(np.arange(n_ctx), frequencies)
    cos, sin = (
        op("Slice", graph.constant(table.astype(np.float32)), ints(0), n_pos, ints(0))
        for table in (np.cos(angles), np.sin(angles))
    )
    scalar = lambda value: graph.constant(np.array(value, dtype=np.int64))
    positions = op("Range", scalar(0), op("Squeeze", n_pos), scalar(1))
    is_later = op("Less", op("Unsqueeze", positions, ints(1)), op("Unsqueeze", positions, ints(0)))
    number = lambda value: graph.constant(np.array(value, dtype=np.float32))
    causal = op("Where", is_later, number(-np.inf), number(0.0))

    for layer in range(n_layers):
        of = lambda name: weight(f"blk.{layer}.{name}.weight")
        is_last = layer + 1 == n_layers
        x = rms_norm(resid, f"blk.{layer}.attn_norm.weight")
        q = matmul(x, by_halves(of("attn_q"), n_heads) / np.float32(np.sqrt(d_head)))
        k = matmul(x, by_halves(of("attn_k"), n_kv_heads))
        v = matmul(x, of("attn_v"))
        grouped = op("Reshape", q, ints(-1, n_kv_heads, n_grouped, d_head))
        q = rotate(op("Transpose", grouped, perm=[1, 2, 0, 3]))
        k, v = (
            op("Transpose", op("Reshape", y, ints(-1, n_kv_heads, d_head)), perm=[1, 0, 2]) for y in (k, v)
        )
        k = op("Transpose", rotate(k), perm=[0, 2, 1])
        scores = op("MatMul", op("Reshape", q, ints(n_kv_heads, -1, d_head)), k)
        square = op("Concat", ints(n_heads), n_pos, n_pos, axis=0)
        scores = op("Add", op("Reshape", scores, square), causal)
        pattern = op("Softmax", scores, axis=-1, name=f"pattern.{layer}")
        if is_last:
            pattern, resid = last_row(pattern, 1), last_row(resid, 0)
        rows = op("Concat", ints(n_kv_heads, -1), n_pos, axis=0)
        z = op("MatMul", op("Reshape", pattern, rows), v)
        z = op("Transpose", op("Reshape", z, ints(n_heads, -1, d_head)), perm=[1, 0, 2])
        resid = op("Add", resid, matmul(op("Reshape", z, ints(-1, d_model)), of("attn_output")))
        x = rms_norm(resid, f"blk.{layer}.ffn_norm.weight")
        gate = matmul(x, of("ffn_gate"))
        gate = op("Mul", gate, op("Sigmoid", gate))
        resid = op("Add", resid, matmul(op("Mul", gate, matmul(x, of("ffn_up"))), of("ffn_down")))
    w_u = weight("output.weight") if "output.weight" in tensors else w_e
    logits = matmul(rms_norm(resid, "output_norm.weight"), w_u)
    op("Reshape", logits, ints(-1), name="logits")

    info = helper.make_tensor_value_info
    outputs = [info("logits", TensorProto.FLOAT, [w_u.shape[0]])]
    outputs += [
        info(f"pattern.{layer}", TensorProto.FLOAT, [n_heads, "n_pos", "n_pos"]) for layer in range(n_layers)
    ]
    inputs = [info("ids", TensorProto.INT64, ["n_pos"])]
    made = helper.make_graph(graph.nodes, "headlight", inputs, outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def largest_difference(file, run):
    """Of the logits that a report of `headlight run` lists."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"ids": np.array(run["ids"], dtype=np.int64)})
    return max(float(abs(logits[entry["id"]] - entry["logit"])) for entry in run["logits_top"])


if __name__ == "__main__":
    main()
