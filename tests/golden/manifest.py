"""Golden logits of the models in `static/models.json`: what every engine's self-test is held against.

Eight ids spread over the vocabulary, and after each of them the logits of those same eight, from the float64 forward pass of
`generate.py`. Writes them into the manifest; run it again when a model changes:

    pip install numpy safetensors gguf
    cargo xtask models
    python tests/golden/manifest.py --gguf smollm2-135m=path/to/smollm2-135m-instruct-q4_1.gguf
"""

import argparse
import hashlib
import json
import pathlib

import numpy as np
from generate import EPS, forward
from gguf import GGUFReader, dequantize
from safetensors.numpy import load_file

STATIC = pathlib.Path(__file__).parents[2] / "static"
N_IDS = 8


def folder(path):
    """A checkpoint of Hugging Face's kind: its configuration and weights."""
    config = json.loads((path / "config.json").read_text())
    c = dict(n_layers=config["num_hidden_layers"], n_heads=config["num_attention_heads"],
             n_kv_heads=config["num_key_value_heads"], d_head=config["head_dim"], d_mlp=config["intermediate_size"],
             d_vocab=config["vocab_size"], tied=config["tie_word_embeddings"], theta=config["rope_theta"],
             eps=config["rms_norm_eps"])
    return c, load_file(path / "model.safetensors")


def gguf(path):
    """A GGUF file of a Llama model: rows of queries and keys lie in pairs there, as llama.cpp turns them."""
    reader = GGUFReader(path)
    field = lambda name: reader.fields[f"llama.{name}"].contents()
    c = dict(n_layers=field("block_count"), n_heads=field("attention.head_count"),
             n_kv_heads=field("attention.head_count_kv"), d_mlp=field("feed_forward_length"),
             d_head=field("embedding_length") // field("attention.head_count"),
             theta=field("rope.freq_base"), eps=field("attention.layer_norm_rms_epsilon"))
    tensors = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    c |= dict(d_vocab=len(tensors["token_embd.weight"]), tied="output.weight" not in tensors)
    names = {"token_embd": "embed_tokens", "output_norm": "norm"}
    w = {f"model.{name}.weight": tensors[f"{of}.weight"] for of, name in names.items()}
    if not c["tied"]:
        w["lm_head.weight"] = tensors["output.weight"]
    parts = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    for layer in range(c["n_layers"]):
        for of, name in parts.items():
            value = tensors[f"blk.{layer}.{of}.weight"]
            if of in ("attn_q", "attn_k"):
                n_in = value.shape[1]
                value = value.reshape(-1, c["d_head"] // 2, 2, n_in).swapaxes(1, 2).reshape(-1, n_in)
            w[f"model.layers.{layer}.{name}.weight"] = value
    return c, w


def golden(c, w):
    assert abs(c["eps"] - EPS) < 1e-9, f"the forward pass has another epsilon than {c['eps']}"
    ids = [i * 2_654_435_761 % c["d_vocab"] for i in range(N_IDS)]
    w = {name: np.asarray(value, np.float64) for name, value in w.items()}
    logits = forward(c, w, ids)["logits"][:, ids]
    return dict(ids=ids, logits=[[round(float(logit), 5) for logit in row] for row in logits])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", action="append", default=[], help="a model that does not come with the page: id=path")
    args = parser.parse_args()
    files = dict(pair.split("=", 1) for pair in args.gguf)
    manifest = json.loads((STATIC / "models.json").read_text())
    for model in manifest:
        if model["format"] == "folder":
            read = folder(STATIC / model["urls"][0])
        elif model["id"] in files:
            path = pathlib.Path(files[model["id"]])
            assert hashlib.sha256(path.read_bytes()).hexdigest() == model["sha256"], f"{path} is another file"
            read = gguf(path)
        else:
            continue
        model["golden"] = golden(*read)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    # A list of numbers on a line.
    for model in manifest:
        for numbers in [model["golden"]["ids"], *model["golden"]["logits"]] if "golden" in model else []:
            spread = json.dumps(numbers, indent=2)
            for depth in (6, 8):
                text = text.replace(spread.replace("\n", "\n" + " " * depth), json.dumps(numbers))
    (STATIC / "models.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
