"""A GGUF file with its weights in f32: the same numbers, which llama.cpp then multiplies as they are.

What `cargo xtask bench --peers` gives to wllama beside the file itself. Everything but the weights and the file's type is copied.

    python tests/bench/dequantise_gguf.py --model smollm2.gguf --output smollm2-f32.gguf
"""

import argparse

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, dequantize


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--output", required=True, help="where the f32 file goes")
    args = parser.parse_args()
    reader = GGUFReader(args.model)
    writer = GGUFWriter(args.output, reader.fields["general.architecture"].contents())
    writer.add_file_type(LlamaFileType.ALL_F32)
    for name, field in reader.fields.items():
        # The writer makes the header itself.
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        of_what = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=of_what)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
