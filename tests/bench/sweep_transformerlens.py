"""A zero sweep over every head in native PyTorch, as it is usually written, against `headlight sweep`.

One full forward a head, `z` of the head zeroed at every position before the output projection: TransformerLens'
`run_with_hooks` (default) or plain transformers with a hook on `o_proj`. Needs torch, transformers, gguf and, for the
first, transformer_lens; none of them is a dependency of the tests.

    headlight bench --model smollm2.gguf --edits > bench.json
    headlight sweep --model smollm2.gguf --ids $(seq -s, 1000 137 9631) --metric logprob > sweep.json
    python tests/bench/sweep_transformerlens.py --model smollm2.gguf --threads 1 \
        --sweep sweep.json --sweep-seconds $(jq .edits.sweep_all_positions.seconds bench.json)

November 2026, SmolLM2 (30 layers of 9 heads), 64 tokens, one thread of a shared two-core x86-64 machine, so in processor
seconds: TransformerLens 4.3 on torch 2.15 takes 112 (270 times the mean of 20 heads), transformers 5.24 takes 106, `headlight
sweep` 33: 3.4 and 3.2 times as fast. Over all 270 heads the effects differ by at most 4e-5 nats.
"""

import argparse
import json
import os
import tempfile
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="SmolLM2 as GGUF")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--package", choices=["transformer_lens", "transformers"], default="transformer_lens")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--prefill", type=int, nargs="*", default=[], help="also time forwards of so many tokens")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="eager")
    parser.add_argument("--sweep", help="what `headlight sweep` printed; its prompt is used and its effects are compared")
    parser.add_argument("--sweep-seconds", type=float, help="how long `headlight sweep` took, without loading")
    return parser.parse_args()


def main():
    args = arguments()
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    folder, file = os.path.split(os.path.abspath(args.model))
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, attn_implementation=args.attention
    ).eval().to(args.device)
    config = model.config
    n_layers, n_heads = config.num_hidden_layers, config.num_attention_heads
    d_head = config.hidden_size // n_heads
    sweep = json.load(open(args.sweep)) if args.sweep else None
    ids = sweep["ids"] if sweep else list(range(1000, 9632, 137))
    tokens = torch.tensor([ids], device=args.device)

    if args.package == "transformer_lens":
        forward, ablated = of_transformer_lens(model, folder, file, tokens)
    else:
        forward, ablated = of_transformers(model, tokens, d_head)

    # A graphics device works on by itself: numbers are there once one of them was read.
    clean = lambda: forward(tokens)
    seconds = lambda work: median([timed(lambda: work()[0, -1, 0].item()) for _ in range(5)])
    seconds(clean)
    forward_s = seconds(clean)
    logprobs = lambda logits: torch.log_softmax(logits[0, -1].float(), dim=-1)
    before = logprobs(clean())
    token = sweep["token"] if sweep else int(before.argmax())
    start, start_cpu = time.perf_counter(), time.process_time()
    effects = [
        [float(logprobs(ablated(layer, head))[token] - before[token]) for head in range(n_heads)]
        for layer in range(n_layers)
    ]
    sweep_s, sweep_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    of_length = lambda n: torch.arange(1000, 1000 + 137 * n, 137, device=args.device)[None] % 40000 + 1000
    report = {
        "package": args.package,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
        "prefill_tokens_per_s": {n: n / seconds(lambda: forward(of_length(n))) for n in args.prefill},
        "attention": args.attention,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "n_tokens": len(ids),
        "n_heads": n_layers * n_heads,
        "forward_s": forward_s,
        "sweep_s": sweep_s,
        "sweep_cpu_s": sweep_cpu_s,
        "forwards": sweep_s / forward_s,
    }
    if sweep:
        pairs = zip(sum(effects, []), sum(sweep["effects"], []))
        report["largest_difference_nats"] = max(abs(a - b) for a, b in pairs)
    if args.sweep_seconds:
        report["times_headlight"] = sweep_s / args.sweep_seconds
    print(json.dumps(report, indent=2))


def of_transformers(model, tokens, d_head):
    """The clean forward, and the forward with one head's z zeroed."""

    def ablated(layer, head):
        def zero(_, inputs):
            z = inputs[0].clone()
            z[..., head * d_head : (head + 1) * d_head] = 0.0
            return (z,)

        handle = model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(zero)
        try:
            return model(tokens, use_cache=False).logits
        finally:
            handle.remove()

    return lambda tokens: model(tokens, use_cache=False).logits, ablated


def of_transformer_lens(model, folder, file, tokens):
    """The same through TransformerLens 4's bridge, which wraps the loaded transformers model as it is."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    with tempfile.TemporaryDirectory() as local:
        # The bridge reads the config again from a folder or the hub.
        model.config.save_pretrained(local)
        bridge = TransformerBridge.boot_transformers(
            local, hf_model=model, tokenizer=tokenizer, device=str(model.device), dtype=model.dtype
        )

    def ablated(layer, head):
        def zero(z, hook):
            z = z.clone()
            z[:, :, head] = 0.0
            return z

        return bridge.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)])

    return bridge, ablated


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(values):
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
