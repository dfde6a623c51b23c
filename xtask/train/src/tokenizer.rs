//! Byte-level BPE tokenizers for the bundled models.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper, Tokenizer};

/// Begins every text.
pub const BOS: &str = "<|bos|>";
/// Its id.
pub const BOS_ID: u32 = 0;

/// A byte-level BPE of at most `d_vocab` entries; id 0 is the BOS, which its post-processor puts before every text.
/// With more entries than `texts` have use for, every word of theirs becomes a single token.
pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, d_vocab: usize) -> anyhow::Result<Tokenizer> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(d_vocab)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(BOS, true)])
        .initial_alphabet(alphabet.into_iter().collect())
        .build();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true))));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), texts).map_err(anyhow::Error::msg)?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{BOS} $A"))
        .map_err(anyhow::Error::msg)?
        .special_tokens(vec![(BOS, BOS_ID)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}
