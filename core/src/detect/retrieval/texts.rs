//! Texts of the caller's in which an answer is hidden: found in the text, asked about behind it.

use serde::Deserialize;

use super::RetrievalPrompt;
use super::haystack::{positions_of, spells};
use crate::decode::StopRules;
use crate::detect::DetectError;
use crate::ids::TokenId;
use crate::tokenizer::Tokenizer;

/// A text of the caller's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenText {
    text: String,
    /// The answer, as it stands in the text.
    needle: String,
    /// What is asked behind the text, the beginning of the answer included.
    question: String,
}

impl GivenText {
    /// Bytes that are read.
    pub fn n_bytes(&self) -> usize {
        self.text.len() + self.question.len()
    }

    /// The prompt of the text with this number.
    pub fn prompt(
        &self,
        number: usize,
        bos: Option<TokenId>,
        rules: StopRules,
        tokenizer: &Tokenizer,
    ) -> Result<RetrievalPrompt, DetectError> {
        let needle = self.needle.trim();
        let start = self.find(number, needle)?;
        let text = format!("{}\n\n{}", self.text, self.question.trim_end());
        let tokens = tokenizer.encode_with_spans(&text)?;
        let span = positions_of(&tokens, &text, start..start + needle.len());
        if !spells(&tokens[span.clone()], needle, tokenizer) {
            return Err(DetectError::Params(format!(
                "the needle \"{needle}\" of text {number} is not a row of whole tokens of this model; make it begin and end \
                 with whole words"
            )));
        }
        let n_bos = usize::from(bos.is_some());
        let ids = bos.into_iter().chain(tokens.into_iter().map(|(id, _)| id)).collect();
        // An answer longer than the usual limit could never be given in full.
        let max_new_tokens = rules.max_new_tokens.max(span.len());
        let rules = StopRules { max_new_tokens, ..rules };
        Ok(RetrievalPrompt {
            ids,
            span: span.start + n_bos..span.end + n_bos,
            rules,
            placement: None,
            n_shared: 0,
        })
    }

    /// The byte at which the needle begins.
    fn find(&self, number: usize, needle: &str) -> Result<usize, DetectError> {
        if needle.is_empty() {
            return Err(DetectError::Params(format!(
                "the needle of text {number} is empty; give the words of the text that answer the question"
            )));
        }
        let missing = || DetectError::NeedleNotFound { text: number, needle: needle.to_owned() };
        let start = self.text.find(needle).ok_or_else(missing)?;
        // A head that looks at the other copy would copy the answer and score nothing.
        match self.text.rfind(needle) == Some(start) {
            true => Ok(start),
            false => Err(DetectError::Params(format!(
                "the needle \"{needle}\" stands in text {number} more than once; leave one of them"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, needle: &str) -> Result<usize, String> {
        let given = GivenText { text: text.to_owned(), needle: needle.to_owned(), question: String::new() };
        given.find(3, needle).map_err(|error| error.to_string())
    }

    #[test]
    fn a_needle_is_found_once_or_refused_in_a_sentence() {
        assert_eq!(find("the key is red", "red"), Ok(11));
        let told = |text, needle| find(text, needle).expect_err("refused");
        assert!(told("the key is red", "blue").contains("text 3 does not hold the needle \"blue\""));
        assert!(told("red or red", "red").contains("more than once"));
        assert!(told("red", "").contains("is empty"));
    }
}
