//! GGUF files as they arrive: in pieces of any size, their tensors in any order, and every way in which they can be wrong.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use headlight_core::engine::{Engine, Loading};
use headlight_core::error::Error;
use headlight_core::hooks::{LogitPositions, RunPlan};
use headlight_tests::tiny::Noise;

const D_VOCAB: usize = 40;
const D_MODEL: usize = 64;
const D_MLP: usize = 96;
const N_LAYERS: usize = 2;

/// A tensor of the file: its name, `[n_out, n_in]` or `[n]`, and how it is stored.
type Listed = (String, Vec<usize>, GgmlDType);

/// Every kind that the engine keeps as it is, and some that it unpacks.
fn tensors() -> Vec<Listed> {
    use GgmlDType::{F16, F32, Q4_0, Q4_1, Q5_0, Q8_0};
    let mut tensors = vec![("token_embd.weight".to_owned(), vec![D_VOCAB, D_MODEL], Q8_0)];
    for layer in 0..N_LAYERS {
        let of_block = [
            ("attn_norm", vec![D_MODEL], F32),
            ("attn_q", vec![64, D_MODEL], Q4_0),
            ("attn_k", vec![32, D_MODEL], F16),
            ("attn_v", vec![32, D_MODEL], Q4_1),
            ("attn_output", vec![D_MODEL, 64], Q8_0),
            ("ffn_norm", vec![D_MODEL], F32),
            ("ffn_gate", vec![D_MLP, D_MODEL], Q5_0),
            ("ffn_up", vec![D_MLP, D_MODEL], F32),
            ("ffn_down", vec![D_MODEL, D_MLP], Q4_1),
        ];
        tensors
            .extend(of_block.map(|(name, shape, kind)| (format!("blk.{layer}.{name}.weight"), shape, kind)));
    }
    tensors.push(("output_norm.weight".to_owned(), vec![D_MODEL], F32));
    tensors
}

/// Weights that are the same wherever in the file they are.
fn weights(name: &str, shape: &[usize], kind: GgmlDType) -> QTensor {
    let mut noise = Noise(name.bytes().fold(7, |seed, byte| seed.wrapping_mul(31) + u64::from(byte)));
    let n_values = shape.iter().product();
    let values: Vec<f32> = (0..n_values).map(|_| noise.id(2001) as f32 / 1000.0 - 1.0).collect();
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).expect("a shape");
    QTensor::quantize(&tensor, kind).expect("can be stored so")
}

/// A file with these tensors, in this order.
fn file(tensors: &[Listed]) -> Vec<u8> {
    let text = |text: &str| Value::String(text.to_owned());
    let letters = (0..D_VOCAB - 3).map(|id| text(&char::from(b'0' + id as u8).to_string()));
    let tokens = letters.chain([text("12")]).collect();
    let metadata = [
        ("general.architecture", text("llama")),
        ("general.name", text("tiny")),
        ("llama.block_count", Value::U32(N_LAYERS as u32)),
        ("llama.attention.head_count", Value::U32(2)),
        ("llama.attention.head_count_kv", Value::U32(1)),
        ("llama.embedding_length", Value::U32(D_MODEL as u32)),
        ("llama.feed_forward_length", Value::U32(D_MLP as u32)),
        ("llama.context_length", Value::U32(128)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        ("tokenizer.ggml.merges", Value::Array(vec![text("1 2")])),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let stored: Vec<QTensor> =
        tensors.iter().map(|(name, shape, kind)| weights(name, shape, *kind)).collect();
    let stored: Vec<(&str, &QTensor)> =
        tensors.iter().zip(&stored).map(|((name, ..), tensor)| (name.as_str(), tensor)).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut bytes, &metadata, &stored).expect("is written");
    bytes.into_inner()
}

/// Loads a file that comes in pieces.
fn arrive(bytes: &[u8], piece_bytes: usize, told_bytes: Option<usize>) -> Result<Engine, Error> {
    let mut loading = Loading::gguf("nameless", told_bytes.map(|n_bytes| n_bytes as u64));
    for piece in bytes.chunks(piece_bytes) {
        loading.feed(piece.to_vec());
        while !loading.step()? {}
    }
    loading.finish()
}

/// The logits of a few tokens, which every weight has a part in.
fn logits(engine: &Engine) -> Vec<f32> {
    let plan = RunPlan { logits: LogitPositions::All, ..RunPlan::default() };
    engine.forward(&[3, 1, 4, 1, 5, 9, 2, 6], &plan).expect("runs").logits.data
}

fn refusal(bytes: &[u8], piece_bytes: usize, told_bytes: Option<usize>) -> (String, &'static str) {
    let error = arrive(bytes, piece_bytes, told_bytes).err().expect("refused");
    (error.to_string(), error.code())
}

#[test]
fn pieces_of_any_size_give_the_model_that_the_whole_file_gives() {
    let bytes = file(&tensors());
    let whole = arrive(&bytes, bytes.len(), Some(bytes.len())).expect("loads");
    assert_eq!((whole.info().name.as_str(), whole.info().n_layers), ("tiny", N_LAYERS));
    let wanted = logits(&whole);
    assert!(wanted.iter().all(|logit| logit.is_finite()) && wanted.iter().any(|logit| *logit != wanted[0]));
    for piece_bytes in [1, 7, 255, 4096, bytes.len() - 1] {
        let engine = arrive(&bytes, piece_bytes, Some(bytes.len())).expect("loads");
        assert_eq!(engine.info(), whole.info(), "pieces of {piece_bytes}: the same sha256, for one");
        assert_eq!(logits(&engine), wanted, "pieces of {piece_bytes}");
    }
    // A size that nobody tells, or tells wrong, costs memory and nothing else.
    for told_bytes in
        [None, Some(0), Some(300), Some(bytes.len() / 2), Some(9 * bytes.len()), Some(usize::MAX)]
    {
        let engine = arrive(&bytes, 1000, told_bytes).expect("loads");
        assert_eq!(logits(&engine), wanted, "said to be of {told_bytes:?} bytes");
    }
}

#[test]
fn a_tensor_is_taken_when_its_last_byte_has_come() {
    let bytes = file(&tensors());
    let mut loading = Loading::gguf("nameless", Some(bytes.len() as u64));
    let mut n_done = Vec::new();
    for piece in bytes.chunks(512) {
        loading.feed(piece.to_vec());
        while !loading.step().expect("a good file") {}
        n_done.push(loading.n_done());
    }
    assert!(loading.is_open());
    assert_eq!((n_done.first(), n_done.last()), (Some(&0), Some(&loading.n_total())));
    assert_eq!(loading.n_total(), tensors().len());
    let half = n_done[n_done.len() / 2];
    assert!(half > 2 && half < loading.n_total(), "{n_done:?}");
}

#[test]
fn the_order_of_tensors_and_strangers_among_them_change_nothing() {
    let mut listed = tensors();
    let wanted = logits(&arrive(&file(&listed), 999, None).expect("loads"));
    listed.reverse();
    let reversed = file(&listed);
    let mut noise = Noise(5);
    listed.sort_by_cached_key(|_| noise.id(1000));
    for index in [0, 7, listed.len()] {
        listed.insert(index, (format!("rope_freqs.{index}"), vec![33, 32], GgmlDType::F32));
    }
    for bytes in [reversed, file(&listed)] {
        for piece_bytes in [100, bytes.len()] {
            let engine = arrive(&bytes, piece_bytes, Some(bytes.len())).expect("loads");
            assert_eq!(logits(&engine), wanted);
        }
    }
}

#[test]
fn a_file_that_ends_early_is_told_wherever_it_ends() {
    let bytes = file(&tensors());
    // What is behind the last tensor is padding.
    let n_bytes = bytes.len() - 32;
    for end in (4..n_bytes).step_by(997).chain([n_bytes - 256]) {
        for told_bytes in [Some(bytes.len()), None] {
            let (told, code) = refusal(&bytes[..end], 800, told_bytes);
            assert!(told.contains("cut short"), "{end} bytes: {told}");
            assert_eq!(code, "truncated");
        }
    }
}

#[test]
fn a_wrong_file_is_refused_before_the_rest_of_it_comes() {
    let mut page = b"<!DOCTYPE html><html><body>Sign in</body></html>".to_vec();
    page.resize(1000, b' ');
    let mut archive = b"PK\x03\x04".to_vec();
    archive.resize(1000, 0);
    let without =
        |name: &str| file(&tensors().into_iter().filter(|(own, ..)| own != name).collect::<Vec<_>>());
    let mut wide = tensors();
    wide[4].1 = vec![64, D_MODEL];
    for (bytes, told) in [
        (page, "web page"),
        (archive, "starts with \"PK"),
        (without("blk.1.ffn_up.weight"), "lacks the tensor blk.1.ffn_up.weight"),
        (without("output_norm.weight"), "lacks the tensor output_norm.weight"),
        (file(&wide), "has shape [64, 64]"),
    ] {
        // The beginning alone, of a file that is said to be long.
        let mut loading = Loading::gguf("nameless", Some(1 << 30));
        loading.feed(bytes.clone());
        let error = loading.step().expect_err("refused");
        assert!(error.to_string().contains(told) && error.code() == "not_a_model", "{error}");
        let (whole, _) = refusal(&bytes, 300, None);
        assert!(whole.contains(told), "{whole}");
    }
    assert!(refusal(b"", 1, None).0.contains("not a GGUF"));
}

#[test]
fn tensors_that_share_bytes_are_refused() {
    let bytes = file(&tensors());
    let mut damaged = bytes.clone();
    let name = b"blk.1.attn_q.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).expect("listed");
    // Behind the name: the number of extents, two of them, the kind.
    let offset = at + name.len() + 4 + 16 + 4;
    damaged[offset..offset + 8].copy_from_slice(&64u64.to_le_bytes());
    let (told, code) = refusal(&damaged, 4096, Some(bytes.len()));
    assert!(told.contains("lies over the one before it"), "{told}");
    assert_eq!(code, "not_a_model");
    // One that claims to be far behind the end.
    damaged[offset..offset + 8].copy_from_slice(&(u64::MAX - 5).to_le_bytes());
    let (told, code) = refusal(&damaged, 4096, Some(bytes.len()));
    assert!(told.contains("cut short (tensor blk.1.attn_q.weight"), "{told}");
    assert_eq!(code, "truncated");
}
