"""Reproduces a view of Headlight with nnsight: the next token, clean and with the edits below.

    pip install "nnsight>=0.8" "transformers>=5" torch gguf
    python THIS_FILE [WEIGHTS]

WEIGHTS is the file (.gguf) or folder that Headlight had loaded, known by its sha256. With it, every number must agree with
the page's within TOLERANCE. Without it the checkpoint comes from the Hugging Face hub; where Headlight's file was quantised
the numbers then differ, and the script only says by how much. With REMOTE the hub's checkpoint runs on NDIF, which needs an
API key: nnsight.CONFIG.set_default_api_key("...").
"""

import hashlib
import os
import sys

import torch
from nnsight import TransformersModel
from transformers import AutoModelForCausalLM, AutoTokenizer

#: data

weights = sys.argv[1] if len(sys.argv) > 1 and not REMOTE else None
if weights is None and REPO is None:
    sys.exit(f"say where the weights of {MODEL} are: python {sys.argv[0]} WEIGHTS")
torch.set_grad_enabled(False)


def load():
    """The model as transformers loads it, in f32; of a remote one the structure alone."""
    if REMOTE:
        return TransformersModel(REPO, task="text-generation", attn_implementation="eager")
    if weights and weights.endswith(".gguf"):
        folder, file = os.path.split(os.path.abspath(weights))
        source, options = folder, {"gguf_file": file}
    else:
        source, options = weights or REPO, {}
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    hf_model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager", **options
    ).eval()
    return TransformersModel(hf_model, task="text-generation", tokenizer=tokenizer)


model = load()
layers = model.model.layers
#: edits
#: check
