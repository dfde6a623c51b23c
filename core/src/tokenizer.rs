//! Text to token ids and back. The algorithm is the `tokenizers` crate's; this file builds it from GGUF metadata or
//! a `tokenizer.json`, and spells tokens for people.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, DecoderWrapper, PreTokenizerWrapper};

use crate::ids::TokenId;
use crate::model::gguf::Metadata;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The GGUF carries none.
    #[error("the GGUF file carries no tokenizer ({0} is missing); choose a file that does")]
    Missing(&'static str),
    /// Another algorithm or pre-tokenizer.
    #[error(
        "the tokenizer \"{0}\" is not supported yet; Headlight reads byte-level BPE with pre-tokenizer smollm or gpt-2, or a tokenizer.json"
    )]
    Unsupported(String),
    /// The library refused it.
    #[error("the tokenizer cannot be read ({0}); download the model again")]
    Unreadable(String),
    /// Its ids go beyond the model's vocabulary.
    #[error(
        "this tokenizer does not belong to this model: it has {n_tokens} tokens, the model {d_vocab}; put the model's own tokenizer.json beside it"
    )]
    Mismatch {
        /// Tokens of the tokenizer.
        n_tokens: usize,
        /// Vocabulary of the model.
        d_vocab: usize,
    },
    /// A text could not be tokenised.
    #[error("the text cannot be tokenised: {0}")]
    Encode(String),
}

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    byte_level: bool,
    bos_id: Option<TokenId>,
    adds_bos: bool,
}

/// One token as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpelling {
    /// Decoded text; U+FFFD stands for bytes that are no character on their own.
    pub text: String,
    /// The vocabulary's own spelling.
    pub piece: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// GGUF's token types that are matched in a text before anything else.
const GGUF_CONTROL: usize = 3;
const GGUF_USER_DEFINED: usize = 4;

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(metadata: &Metadata<'_>, d_vocab: usize) -> Result<Self, TokenizerError> {
        let model =
            metadata.string("tokenizer.ggml.model").ok_or(TokenizerError::Missing("tokenizer.ggml.model"))?;
        if model != "gpt2" {
            return Err(TokenizerError::Unsupported(model.to_owned()));
        }
        let pieces = metadata
            .strings("tokenizer.ggml.tokens")
            .ok_or(TokenizerError::Missing("tokenizer.ggml.tokens"))?;
        let merges = metadata
            .strings("tokenizer.ggml.merges")
            .ok_or(TokenizerError::Missing("tokenizer.ggml.merges"))?;
        let merges = merges
            .into_iter()
            .map(|merge| {
                let pair = merge.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()));
                pair.ok_or_else(|| TokenizerError::Unreadable(format!("\"{merge}\" is not a merge")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let vocab: HashMap<String, TokenId> =
            pieces.iter().enumerate().map(|(id, piece)| ((*piece).to_owned(), id as TokenId)).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .build()
            .map_err(|error| TokenizerError::Unreadable(error.to_string()))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_pre_tokenizer(Some(pre_tokenizer(metadata.string("tokenizer.ggml.pre"))?));
        inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
        let types = metadata.numbers("tokenizer.ggml.token_type").unwrap_or_default();
        let special = pieces.iter().zip(types);
        let special = special.filter(|(_, kind)| [GGUF_CONTROL, GGUF_USER_DEFINED].contains(kind));
        inner
            .add_special_tokens(special.map(|(piece, _)| AddedToken::from(*piece, true)))
            .map_err(|error| TokenizerError::Unreadable(error.to_string()))?;
        let bos_id = metadata.number("tokenizer.ggml.bos_token_id").and_then(|id| TokenId::try_from(id).ok());
        let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token").unwrap_or(false);
        Self { inner, byte_level: true, bos_id, adds_bos }.fitting(d_vocab)
    }

    /// Reads a `tokenizer.json`. Whether a BOS is the default is what its post-processor does; `bos_id` is the one that
    /// `config.json` names, for a model whose tokenizer adds none.
    pub fn from_json(json: &[u8], bos_id: Option<TokenId>, d_vocab: usize) -> Result<Self, TokenizerError> {
        let inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| TokenizerError::Unreadable(error.to_string()))?;
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        // What comes first also before an empty text was added by the post-processor, and before, not after.
        let first = |text: &str| inner.encode_fast(text, true).ok()?.get_ids().first().copied();
        let added = first("").filter(|&id| first("a") == Some(id));
        let (bos_id, adds_bos) = (added.or(bos_id), added.is_some());
        Self { inner, byte_level, bos_id, adds_bos }.fitting(d_vocab)
    }

    /// A model may have unused rows beyond its tokenizer, never fewer rows than the tokenizer has ids.
    fn fitting(mut self, d_vocab: usize) -> Result<Self, TokenizerError> {
        let n_tokens = self.n_ids();
        if n_tokens == 0 || n_tokens > d_vocab {
            return Err(TokenizerError::Mismatch { n_tokens, d_vocab });
        }
        self.bos_id = self.bos_id.filter(|&id| (id as usize) < d_vocab);
        self.adds_bos &= self.bos_id.is_some();
        Ok(self)
    }

    /// One more than the highest id.
    fn n_ids(&self) -> usize {
        let highest = self.inner.get_vocab(true).into_values().max();
        highest.map_or(0, |id| id as usize + 1)
    }

    /// Every id's own spelling, in order; an unused id has an empty one.
    pub fn vocabulary(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.n_ids()).map(|id| self.inner.id_to_token(id as TokenId).unwrap_or_default())
    }

    /// The beginning-of-sequence token, if the model names one.
    pub fn bos_id(&self) -> Option<TokenId> {
        self.bos_id
    }

    /// Whether the model's own metadata asks for a BOS before every text.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Ids of a text; nothing is added before or after it.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| TokenizerError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of a text, each with the bytes of the text that it stands for.
    pub fn encode_with_spans(&self, text: &str) -> Result<Vec<(TokenId, Range<usize>)>, TokenizerError> {
        let encoding =
            self.inner.encode(text, false).map_err(|error| TokenizerError::Encode(error.to_string()))?;
        let ids = encoding.get_ids().iter().copied();
        Ok(ids.zip(encoding.get_offsets().iter().map(|&(start, end)| start..end)).collect())
    }

    /// Ids that are no text, such as ends of turns, in order.
    pub fn special_ids(&self) -> Vec<TokenId> {
        let added = self.inner.get_added_tokens_decoder();
        let mut ids: Vec<TokenId> =
            added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Spelling of one id; ids that the tokenizer lacks are shown as `[id]`.
    pub fn spelling(&self, id: TokenId) -> TokenSpelling {
        let Some(piece) = self.inner.id_to_token(id) else {
            let text = format!("[{id}]");
            return TokenSpelling { bytes: text.clone().into_bytes(), piece: text.clone(), text };
        };
        let special = self.inner.get_added_vocabulary().is_special_token(&piece);
        let bytes = match self.byte_level && !special {
            true => piece_bytes(&piece),
            false => None,
        };
        match bytes {
            Some(bytes) => TokenSpelling { text: String::from_utf8_lossy(&bytes).into_owned(), piece, bytes },
            None => {
                let decoded = if special { None } else { self.inner.decode(&[id], false).ok() };
                let text = decoded.unwrap_or_else(|| piece.clone());
                TokenSpelling { bytes: text.clone().into_bytes(), piece, text }
            }
        }
    }
}

fn pre_tokenizer(name: Option<&str>) -> Result<PreTokenizerWrapper, TokenizerError> {
    let byte_level = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
    match name {
        // Every digit stands alone, before GPT-2's splitting sees the text.
        Some("smollm") => {
            let digits = PreTokenizerWrapper::Digits(Digits::new(true));
            Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![digits, byte_level])))
        }
        None | Some("gpt-2" | "gpt2" | "default") => Ok(byte_level),
        Some(other) => Err(TokenizerError::Unsupported(other.to_owned())),
    }
}

/// Bytes of a byte-level piece: GPT-2 writes each byte as one printable character (Radford et al. 2019).
/// `None` when the piece has other characters.
fn piece_bytes(piece: &str) -> Option<Vec<u8>> {
    static BYTE_OF: OnceLock<HashMap<char, u8>> = OnceLock::new();
    let byte_of = BYTE_OF.get_or_init(|| {
        let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let shown = (0..=255u8).filter(printable).map(|byte| (char::from(byte), byte));
        // The others follow from U+0100 on, in order.
        let hidden = (0..=255u8).filter(|byte| !printable(byte)).enumerate();
        let hidden = hidden.filter_map(|(i, byte)| Some((char::from_u32(0x100 + i as u32)?, byte)));
        shown.chain(hidden).collect()
    });
    piece.chars().map(|c| byte_of.get(&c).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of two words and two special tokens, with this post-processor.
    fn with_post_processor(post_processor: &str) -> Tokenizer {
        let json = format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
            "added_tokens": [{{"id": 2, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}}, {{"id": 3, "content": "</s>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": true}}], "decoder": null,
            "model": {{"type": "WordLevel", "vocab": {{"a": 0, "b": 1, "<s>": 2, "</s>": 3}}, "unk_token": "b"}},
            "post_processor": {post_processor}}}"#
        );
        Tokenizer::from_json(json.as_bytes(), Some(3), 4).expect("the tokenizer is whole")
    }

    fn template(single: &str) -> String {
        format!(
            r#"{{"type": "TemplateProcessing", "single": {single}, "pair": {single}, "special_tokens":
            {{"<s>": {{"id": "<s>", "ids": [2], "tokens": ["<s>"]}}, "</s>": {{"id": "</s>", "ids": [3], "tokens": ["</s>"]}}}}}}"#
        )
    }

    #[test]
    fn the_post_processor_says_whether_a_bos_is_the_default() {
        let text = r#"{"Sequence": {"id": "A", "type_id": 0}}"#;
        let special = |id: &str| format!(r#"{{"SpecialToken": {{"id": "{id}", "type_id": 0}}}}"#);
        let bos = |post_processor: &str| {
            let tokenizer = with_post_processor(post_processor);
            (tokenizer.bos_id(), tokenizer.adds_bos())
        };
        assert_eq!(bos("null"), (Some(3), false), "config.json names the BOS");
        assert_eq!(bos(&template(&format!("[{}, {text}]", special("<s>")))), (Some(2), true));
        assert_eq!(
            bos(&template(&format!("[{}, {text}, {}]", special("<s>"), special("</s>")))),
            (Some(2), true)
        );
        assert_eq!(
            bos(&template(&format!("[{text}, {}]", special("</s>")))),
            (Some(3), false),
            "an end is no BOS"
        );
        assert_eq!(with_post_processor("null").encode("a").expect("encodes"), [0], "encoding adds nothing");
    }

    #[test]
    fn pieces_give_their_bytes() {
        assert_eq!(piece_bytes("Ġcapital"), Some(b" capital".to_vec()));
        assert_eq!(piece_bytes("Ċ"), Some(b"\n".to_vec()));
        assert_eq!(piece_bytes("Ã©"), Some("é".as_bytes().to_vec()));
        assert_eq!(piece_bytes("日"), None);
    }
}
