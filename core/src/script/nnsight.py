"""Reproduces a view of Headlight with nnsight: the next token, clean and with the edits below.

    pip install "nnsight>=0.8" "transformers>=5" torch gguf
    python THIS_FILE [WEIGHTS]

WEIGHTS is the file (.gguf) or folder that Headlight had loaded, known by its sha256. With it, every number must agree with
the page's within TOLERANCE. Without it the files come from where the page had them (FILES), where that is known, else the
checkpoint from the Hugging Face hub (REPO); where Headlight's file was quantised the numbers then differ, and the script only
says by how much. With REMOTE the hub's checkpoint runs on NDIF, which needs an API key:
nnsight.CONFIG.set_default_api_key("...").
"""

import hashlib
import os
import sys
import tempfile
import urllib.request

import torch
from nnsight import TransformersModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

#: data

weights = sys.argv[1] if len(sys.argv) > 1 and not REMOTE else None
if weights is None and FILES is None and REPO is None:
    sys.exit(f"say where the weights of {MODEL} are: python {sys.argv[0]} WEIGHTS")
torch.set_grad_enabled(False)
#: checkpoint


def load():
    """The model in nnsight; of a remote one the structure alone."""
    if REMOTE:
        return TransformersModel(REPO, task="text-generation", attn_implementation="eager")
    hf_model, tokenizer = checkpoint()
    return TransformersModel(hf_model, task="text-generation", tokenizer=tokenizer)


model = load()
layers = model.model.layers
#: edits
#: check
