//! Whether a model fits, told from its size before it is downloaded.

use crate::protocol::ModelFormat;
use crate::view_model::size_text;

/// What WebAssembly can address, bytes.
const WASM_BYTES: u64 = 4 << 30;
/// Engine, page and a prompt of a few hundred tokens, bytes.
const BESIDES_BYTES: u64 = 128 << 20;
/// The part of a file that its largest tensor, the embedding, takes: about a third in the smallest models, less in others.
const LARGEST_TENSOR: u64 = 3;

/// What loading a file of `n_bytes` takes at least, bytes: the weights as the engine reads them, which are no smaller than in the
/// file, and beside them the file, or of one that is taken in as it arrives its largest tensor.
fn needed_bytes(n_bytes: u64, form: ModelFormat) -> u64 {
    let beside = match form {
        ModelFormat::Folder => n_bytes,
        ModelFormat::Gguf => n_bytes / LARGEST_TENSOR,
    };
    n_bytes.saturating_add(beside).saturating_add(BESIDES_BYTES)
}

/// Fails, with a sentence for the user, when a file of `n_bytes` cannot be loaded; `memory_gib` is the machine's memory where the
/// browser tells it (rounded, and never more than 8).
pub fn check(n_bytes: u64, form: ModelFormat, memory_gib: Option<f64>) -> Result<(), String> {
    let needed = needed_bytes(n_bytes, form);
    let too_much = |has: String| {
        let (file, needed) = (size_text(n_bytes), size_text(needed));
        format!(
            "a file of {file} takes {needed} of memory at least, and {has}; choose a smaller model, or one of fewer bits"
        )
    };
    if needed > WASM_BYTES {
        return Err(too_much("a page can have no more than 4 GB".to_owned()));
    }
    match memory_gib {
        Some(gib) if needed as f64 > gib * f64::from(1 << 30) => {
            Err(too_much(format!("this machine has {gib} GB")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_told_with_its_size_and_the_limit() {
        let [file, folder] = [ModelFormat::Gguf, ModelFormat::Folder];
        assert_eq!(check(98_362_432, file, None), Ok(()));
        assert_eq!(check(98_362_432, file, Some(0.5)), Ok(()));
        let told = check(98_362_432, file, Some(0.25)).err();
        assert_eq!(told, None, "as it arrives");
        let told = check(98_362_432, folder, Some(0.25)).expect_err("a quarter of a GiB");
        assert!(told.contains("98.4 MB") && told.contains("330.9 MB") && told.contains("0.25 GB"), "{told}");
        let told = check(150_000_000, file, Some(0.25)).expect_err("a quarter of a GiB");
        assert!(told.contains("150.0 MB") && told.contains("334.2 MB"), "{told}");
        let told = check(2_100_000_000, folder, Some(8.0)).expect_err("more than WebAssembly has");
        assert!(told.contains("2.10 GB") && told.contains("no more than 4 GB"), "{told}");
        assert_eq!(check(2_100_000_000, file, Some(8.0)), Ok(()));
        assert!(check(3_500_000_000, file, Some(8.0)).is_err());
        assert!(check(u64::MAX, file, None).is_err());
    }
}
