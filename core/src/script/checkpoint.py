

def checkpoint():
    """The model as transformers loads it, in f32, and its tokenizer."""
    source, options = weights or REPO, {}
    if source.endswith(".gguf"):
        source, options["gguf_file"] = os.path.split(os.path.abspath(source))
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    options.update(dtype=torch.float32, attn_implementation="eager")
#: with_mlps
    return AutoModelForCausalLM.from_pretrained(source, **options).eval(), tokenizer
#: attention_only
    # The checkpoint has attention alone, and transformers' Llama cannot leave its MLPs out: they get one neuron, and weights of 0,
    # so that each adds exactly nothing.
    config = AutoConfig.from_pretrained(source, intermediate_size=1)
    model = AutoModelForCausalLM.from_config(config, **options).eval()
    for layer in model.model.layers:
        for parameter in layer.mlp.parameters():
            parameter.zero_()
    found = model.load_state_dict(load_file(os.path.join(source, "model.safetensors")), strict=False)
    rest = [name for name in found.missing_keys if ".mlp." not in name and "post_attention" not in name]
    assert not rest and not found.unexpected_keys, f"another model's weights: {rest or found.unexpected_keys}"
    return model, tokenizer
#: fetched


def fetched(folder):
    """The files that the page loaded, put into a folder."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        urllib.request.urlretrieve(f"{FILES}/{name}", os.path.join(folder, name))
    return folder


own_folder = tempfile.TemporaryDirectory(prefix="headlight-")
weights = weights or fetched(own_folder.name)
