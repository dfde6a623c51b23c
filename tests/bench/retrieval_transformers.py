"""Retrieval scoring in native PyTorch, as Wu et al.'s script does it, against `headlight detect --detector retrieval`.

The same prompts, each read whole and decoded greedily with a cache; at every step every head's most attended key is read off
the eager attention. Needs torch, transformers and gguf.

    headlight detect --detector retrieval --params '{"lengths":[1024]}' --model smollm2.gguf > retrieval.json
    python tests/bench/retrieval_transformers.py --model smollm2.gguf --report retrieval.json --device cuda
"""

import argparse
import json
import os
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="SmolLM2 as GGUF")
    parser.add_argument("--report", required=True, help="what `headlight detect` printed; its prompts are used")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main():
    args = arguments()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    folder, file = os.path.split(os.path.abspath(args.model))
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager"
    )
    model = model.eval().to(args.device)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    prompts = json.load(open(args.report))["evidence"]["prompts"]
    texts = ["".join(prompt["tokens"]) for prompt in prompts]
    batches = [tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids for text in texts]
    assert [ids.shape[1] for ids in batches] == [prompt["n_tokens"] for prompt in prompts], "other tokens"

    def decode(ids, n_steps):
        generated, looked_at, cache = [], [], None
        ids = ids.to(args.device)
        for _ in range(n_steps):
            out = model(ids, past_key_values=cache, use_cache=True, output_attentions=True)
            cache = out.past_key_values
            looked_at.append([layer[0, :, -1].argmax(dim=-1).tolist() for layer in out.attentions])
            ids = out.logits[:, -1:].argmax(dim=-1)
            generated.append(int(ids))
        return generated, looked_at

    decode(batches[0], 1)
    start = time.perf_counter()
    decoded = [decode(ids, len(prompt["generated_ids"])) for ids, prompt in zip(batches, prompts)]
    seconds = time.perf_counter() - start
    same = sum(generated == prompt["generated_ids"] for (generated, _), prompt in zip(decoded, prompts))
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
                "torch": torch.__version__,
                "n_prompts": len(prompts),
                "n_tokens": sum(ids.shape[1] for ids in batches),
                "seconds": seconds,
                "same_continuations": same,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
