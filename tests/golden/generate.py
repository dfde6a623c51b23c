"""Golden activations: tiny random Llama checkpoints and every hook point of a float64 forward pass.

Written from the definitions (RMSNorm: Zhang & Sennrich 2019; RoPE on half-split pairs: Su et al. 2021 as Hugging Face
lays it out; SwiGLU: Shazeer 2020; grouped-query attention: Ainslie et al. 2023), with numpy alone and no code of
Headlight, so that it is an independent second opinion. Run it again with

    pip install numpy safetensors
    python tests/golden/generate.py
"""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
CONFIGS = {
    "gqa": dict(n_layers=3, n_heads=4, n_kv_heads=2, d_head=8, d_model=32, d_mlp=44, d_vocab=53, tied=False,
                theta=10000.0),
    "attn-only": dict(n_layers=2, n_heads=3, n_kv_heads=3, d_head=6, d_model=20, d_mlp=0, d_vocab=31, tied=True,
                      theta=10000.0),
}
N_TOKENS = 19
EPS = 1e-5


def rms_norm(x, gain):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * gain


def rope(x, theta):
    """x: [pos, head, d_head]; dimension i turns with dimension i + d_head/2."""
    n, _, d = x.shape
    angle = np.arange(n)[:, None] * theta ** (-np.arange(0, d, 2) / d)[None, :]
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def forward(c, w, ids):
    n = len(ids)
    acts = {}
    resid = w["model.embed_tokens.weight"][ids]
    acts["hook_embed"] = resid
    for layer in range(c["n_layers"]):
        name = lambda hook: f"blocks.{layer}.{hook}"
        weight = lambda part: w[f"model.layers.{layer}.{part}.weight"]
        acts[name("hook_resid_pre")] = resid
        x = acts[name("ln1.hook_normalized")] = rms_norm(resid, weight("input_layernorm"))
        heads = lambda part, k: (x @ weight(f"self_attn.{part}_proj").T).reshape(n, k, c["d_head"])
        q = acts[name("attn.hook_q")] = heads("q", c["n_heads"])
        k = acts[name("attn.hook_k")] = heads("k", c["n_kv_heads"])
        v = acts[name("attn.hook_v")] = heads("v", c["n_kv_heads"])
        q, k = rope(q, c["theta"]), rope(k, c["theta"])
        acts[name("attn.hook_rot_q")], acts[name("attn.hook_rot_k")] = q, k
        group = c["n_heads"] // c["n_kv_heads"]
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(c["d_head"])
        scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
        acts[name("attn.hook_attn_scores")] = scores
        e = np.exp(scores - scores.max(-1, keepdims=True))
        pattern = acts[name("attn.hook_pattern")] = e / e.sum(-1, keepdims=True)
        z = acts[name("attn.hook_z")] = np.einsum("hqk,khd->qhd", pattern, v)
        out = acts[name("hook_attn_out")] = z.reshape(n, -1) @ weight("self_attn.o_proj").T
        resid = resid + out
        if c["d_mlp"]:
            acts[name("hook_resid_mid")] = resid
            x = acts[name("ln2.hook_normalized")] = rms_norm(resid, weight("post_attention_layernorm"))
            gate = acts[name("mlp.hook_pre")] = x @ weight("mlp.gate_proj").T
            linear = acts[name("mlp.hook_pre_linear")] = x @ weight("mlp.up_proj").T
            post = acts[name("mlp.hook_post")] = gate / (1 + np.exp(-gate)) * linear
            out = acts[name("hook_mlp_out")] = post @ weight("mlp.down_proj").T
            resid = resid + out
        acts[name("hook_resid_post")] = resid
    x = acts["ln_final.hook_normalized"] = rms_norm(resid, w["model.norm.weight"])
    unembed = w["model.embed_tokens.weight"] if c["tied"] else w["lm_head.weight"]
    acts["logits"] = x @ unembed.T
    return acts


def weights(c, rng):
    d, dq, dkv = c["d_model"], c["n_heads"] * c["d_head"], c["n_kv_heads"] * c["d_head"]
    shapes = {"model.embed_tokens.weight": (c["d_vocab"], d), "model.norm.weight": (d,)}
    if not c["tied"]:
        shapes["lm_head.weight"] = (c["d_vocab"], d)
    for layer in range(c["n_layers"]):
        block = {"input_layernorm": (d,), "self_attn.q_proj": (dq, d), "self_attn.k_proj": (dkv, d),
                 "self_attn.v_proj": (dkv, d), "self_attn.o_proj": (d, dq)}
        if c["d_mlp"]:
            block |= {"post_attention_layernorm": (d,), "mlp.gate_proj": (c["d_mlp"], d),
                      "mlp.up_proj": (c["d_mlp"], d), "mlp.down_proj": (d, c["d_mlp"])}
        shapes |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in block.items()}
    draw = lambda s: (1 + 0.2 * rng.standard_normal(s)) if len(s) == 1 else 0.35 * rng.standard_normal(s)
    return {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}


def main():
    for index, (name, c) in enumerate(CONFIGS.items()):
        rng = np.random.default_rng(1000 + index)
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        w = weights(c, rng)
        ids = rng.integers(0, c["d_vocab"], N_TOKENS)
        acts = forward(c, {key: value.astype(np.float64) for key, value in w.items()}, ids)
        save_file(w, folder / "model.safetensors")
        golden = {key: np.ascontiguousarray(value.astype(np.float32)) for key, value in acts.items()}
        save_file(golden | {"ids": ids.astype(np.int32)}, folder / "golden.safetensors")
        config = dict(model_type="llama", hidden_size=c["d_model"], intermediate_size=c["d_mlp"],
                      num_hidden_layers=c["n_layers"], num_attention_heads=c["n_heads"],
                      num_key_value_heads=c["n_kv_heads"], head_dim=c["d_head"], rms_norm_eps=EPS, rope_theta=c["theta"],
                      vocab_size=c["d_vocab"], max_position_embeddings=64, tie_word_embeddings=c["tied"])
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        vocab = {f"t{i}": i for i in range(c["d_vocab"])}
        tokenizer = dict(version="1.0", added_tokens=[], pre_tokenizer=dict(type="Whitespace"),
                         model=dict(type="WordLevel", vocab=vocab, unk_token="t0"))
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer) + "\n")


if __name__ == "__main__":
    main()
