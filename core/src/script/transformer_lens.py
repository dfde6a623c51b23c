"""Reproduces a view of Headlight with TransformerLens: the next token, clean and with the edits below.

    pip install "transformer-lens>=4.3" "transformers>=5" torch gguf
    python THIS_FILE [WEIGHTS]

WEIGHTS is the file (.gguf) or folder that Headlight had loaded, known by its sha256. With it, every number must agree with
the page's within TOLERANCE. Without it the files come from where the page had them (FILES), where that is known, else the
checkpoint from the Hugging Face hub (REPO); where Headlight's file was quantised the numbers then differ, and the script only
says by how much.
"""

import hashlib
import os
import sys
import tempfile
import urllib.request

import torch
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

#: data

weights = sys.argv[1] if len(sys.argv) > 1 else None
if weights is None and FILES is None and REPO is None:
    sys.exit(f"say where the weights of {MODEL} are: python {sys.argv[0]} WEIGHTS")
torch.set_grad_enabled(False)
#: checkpoint


def load():
    """The model wrapped by TransformerLens as it is."""
    hf_model, tokenizer = checkpoint()
    with tempfile.TemporaryDirectory() as local:
        # The bridge reads the config again, from a folder or the hub.
        hf_model.config.save_pretrained(local)
        return TransformerBridge.boot_transformers(
            local, hf_model=hf_model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )


model = load()
#: keep


def keep(ids, *names):
    """Activations of a run without edits, by hook name."""
    _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=lambda name: name in names)
    return {name: cache[name] for name in names}
#: mean_over


def mean_over(prompts, *names):
    """Mean over every position of every prompt, by hook name."""
    runs = [keep(ids, *names) for ids in prompts]
    return {name: torch.cat([run[name][0] for run in runs]).mean(0) for name in names}
#: edits

tokens = torch.tensor([IDS])
clean = model(tokens)[0, -1]
edited = model.run_with_hooks(tokens, fwd_hooks=HOOKS)[0, -1]
#: check
