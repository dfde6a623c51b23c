//! Prompts that hide a needle in a haystack: a sentence with an answer among sentences of public-domain prose, then a
//! question. Building only; running and scoring are done elsewhere.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::detect::DetectError;
use crate::ids::TokenId;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Sentences of Herman Melville, “Moby-Dick” (1851), one a line; source and licence are beside the file.
const PROSE: &str = include_str!("haystack/moby_dick.txt");

/// A sentence to hide, and what is asked about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needle {
    pub name: &'static str,
    /// The sentence up to the answer; the prompt ends with it too, so that the answer itself comes next.
    pub lead: &'static str,
    /// With its leading space. Its tokens are the ones that a retrieval head copies.
    pub answer: &'static str,
    /// The rest of the sentence.
    pub tail: &'static str,
    pub question: &'static str,
}

pub(super) const NEEDLES: [Needle; 6] = [
    Needle {
        name: "password",
        lead: "The password of the archive is",
        answer: " velvet thunder under orange snow",
        tail: ".",
        question: "What is the password of the archive?",
    },
    Needle {
        name: "cabinet",
        lead: "The green cabinet in the hallway holds",
        answer: " nine silver lanterns and a folded map of the harbor",
        tail: ".",
        question: "What does the green cabinet in the hallway hold?",
    },
    Needle {
        name: "valley",
        lead: "The best way to cross the valley is to",
        answer: " follow white stones and keep the wind on your left",
        tail: ".",
        question: "What is the best way to cross the valley?",
    },
    Needle {
        name: "violin",
        lead: "Marta left the violin",
        answer: " beside a copper bench near the river mill",
        tail: ".",
        question: "Where did Marta leave the violin?",
    },
    Needle {
        name: "beekeeper",
        lead: "The beekeeper drinks",
        answer: " warm barley tea with thin slices of lemon",
        tail: " at dawn.",
        question: "What does the beekeeper drink at dawn?",
    },
    Needle {
        name: "tower",
        lead: "The clock tower was repaired by",
        answer: " a quiet baker named Oren Halvik",
        tail: " in the winter of the flood.",
        question: "Who repaired the clock tower?",
    },
];

impl Needle {
    /// What follows the haystack.
    fn ask(self) -> String {
        format!("\n\nQuestion: {}\nAnswer: {}", self.question, self.lead)
    }
}

/// Which prompts are built.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Haystacks {
    /// Tokens of a prompt at most, one group of prompts each.
    pub lengths: Vec<usize>,
    /// Where needles are put, percent of the haystack's sentences.
    pub depths: Vec<f32>,
    /// Needles, from the first.
    pub n_needles: usize,
    /// Put first, if any.
    pub bos: Option<TokenId>,
    /// Which sentence of the prose comes first.
    pub seed: u64,
}

/// Where a needle lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Placement {
    /// Which of the detector's own.
    pub needle: String,
    /// Tokens of the prompt at most.
    pub length: usize,
    /// Where in the haystack, percent of its sentences.
    pub depth_percent: f32,
}

/// A built prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hidden {
    pub ids: Vec<TokenId>,
    /// Positions of the answer's tokens.
    pub span: Range<usize>,
    pub placement: Placement,
}

/// Depths in the order in which prompts are built.
pub(super) fn deepest_first(depths: &[f32]) -> Vec<f32> {
    let mut depths = depths.to_vec();
    depths.sort_by(|a, b| b.total_cmp(a));
    depths
}

impl Haystacks {
    /// Every prompt, deepest needles first: each then shares as long a beginning as it can with the one before it.
    pub fn build(&self, tokenizer: &Tokenizer) -> Result<Vec<Hidden>, DetectError> {
        let mut prompts = Vec::new();
        let depths = deepest_first(&self.depths);
        for &length in &self.lengths {
            let sentences = self.sentences(length, tokenizer)?;
            for &depth_percent in &depths {
                for needle in &NEEDLES[..self.n_needles] {
                    let placement = Placement { needle: needle.name.to_owned(), length, depth_percent };
                    prompts.push(self.hide(*needle, &sentences, placement, tokenizer)?);
                }
            }
        }
        Ok(prompts)
    }

    /// The sentences that fit beside the longest needle and its question.
    fn sentences(&self, length: usize, tokenizer: &Tokenizer) -> Result<Vec<&'static str>, DetectError> {
        let mut n_tokens = usize::from(self.bos.is_some()) + self.n_tokens_of_needle(tokenizer)?;
        let prose: Vec<&str> = PROSE.lines().collect();
        let first = (self.seed % prose.len() as u64) as usize;
        let mut sentences = Vec::new();
        for sentence in prose[first..].iter().chain(&prose[..first]) {
            n_tokens += tokenizer.encode(&format!(" {sentence}"))?.len();
            if n_tokens > length {
                return match sentences.len() {
                    0 => Err(DetectError::Params(format!(
                        "length {length} leaves no room for a haystack in this model's tokens; give at least {n_tokens}"
                    ))),
                    _ => Ok(sentences),
                };
            }
            sentences.push(*sentence);
        }
        Err(DetectError::Params(format!(
            "length {length} is more than the haystack's prose has; give at most {}",
            n_tokens - 1
        )))
    }

    /// Tokens of the longest needle with its question.
    fn n_tokens_of_needle(&self, tokenizer: &Tokenizer) -> Result<usize, TokenizerError> {
        let n_tokens = NEEDLES[..self.n_needles].iter().map(|needle| {
            let sentence = format!(" {}{}{}", needle.lead, needle.answer, needle.tail);
            Ok(tokenizer.encode(&sentence)?.len() + tokenizer.encode(&needle.ask())?.len())
        });
        n_tokens.collect::<Result<Vec<_>, _>>().map(|all| all.into_iter().max().unwrap_or(0))
    }

    fn hide(
        &self,
        needle: Needle,
        sentences: &[&str],
        placement: Placement,
        tokenizer: &Tokenizer,
    ) -> Result<Hidden, DetectError> {
        let depth = f64::from(placement.depth_percent) / 100.0;
        let (before, after) = sentences.split_at((depth * sentences.len() as f64).round() as usize);
        let lead = before.iter().map(|sentence| format!("{sentence} ")).collect::<String>() + needle.lead;
        let after: String = after.iter().map(|sentence| format!(" {sentence}")).collect();
        let text = format!("{lead}{}{}{after}{}", needle.answer, needle.tail, needle.ask());
        let answer = lead.len()..lead.len() + needle.answer.len();
        let tokens = tokenizer.encode_with_spans(&text)?;
        let span = positions_of(&tokens, &text, answer.clone());
        if !spells(&tokens[span.clone()], &text[answer], tokenizer) {
            return Err(DetectError::ModelLacks(
                "this model's tokenizer cannot spell the needles; give prompts of your own in params, such as {\"prompts\": \
                 [{\"ids\": [5, 6, 7, 8], \"span\": [1, 3]}]}",
            ));
        }
        let n_bos = usize::from(self.bos.is_some());
        let ids = self.bos.into_iter().chain(tokens.into_iter().map(|(id, _)| id)).collect();
        Ok(Hidden { ids, span: span.start + n_bos..span.end + n_bos, placement })
    }
}

/// Positions of the tokens that stand for any byte of `part`, its leading space aside.
pub(super) fn positions_of(
    tokens: &[(TokenId, Range<usize>)],
    text: &str,
    part: Range<usize>,
) -> Range<usize> {
    let start = part.end - text[part.clone()].trim_start().len();
    let first = tokens.iter().position(|(_, bytes)| bytes.end > start).unwrap_or(tokens.len());
    let end = tokens.iter().rposition(|(_, bytes)| bytes.start < part.end).map_or(0, |last| last + 1);
    first..end.max(first)
}

/// Whether these tokens are this text and not stand-ins for unknown words; white space aside.
pub(super) fn spells(tokens: &[(TokenId, Range<usize>)], text: &str, tokenizer: &Tokenizer) -> bool {
    let spelt: String = tokens.iter().map(|(id, _)| tokenizer.spelling(*id).text).collect();
    let letters = |text: &str| text.split_whitespace().collect::<String>();
    letters(&spelt) == letters(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect()
    }

    #[test]
    fn the_prose_has_no_word_of_an_answer_and_an_answer_no_word_twice() {
        const SMALL: [&str; 12] =
            ["a", "and", "the", "of", "to", "with", "in", "on", "near", "is", "by", "at"];
        let prose: std::collections::BTreeSet<_> = words(PROSE).into_iter().collect();
        for needle in NEEDLES {
            let answer = words(needle.answer);
            let distinct: std::collections::BTreeSet<_> = answer.iter().collect();
            assert_eq!(distinct.len(), answer.len(), "{}", needle.answer);
            for word in answer.iter().filter(|word| !SMALL.contains(&word.as_str())) {
                assert!(!prose.contains(word), "{word} of \"{}\" occurs in the prose", needle.answer);
            }
            assert!(needle.answer.starts_with(' ') && needle.tail.ends_with('.'));
        }
    }

    #[test]
    fn positions_are_those_of_the_tokens_that_touch_the_answer() {
        let text = "is red fox. x";
        let bytes = [0..2, 2..6, 6..10, 10..11, 11..13];
        let tokens: Vec<_> = bytes.into_iter().map(|bytes| (0, bytes)).collect();
        assert_eq!(positions_of(&tokens, text, 2..10), 1..3);
        // A tokenizer that leaves spaces out.
        let bytes = [0..2, 3..6, 7..10, 10..11, 12..13];
        let tokens: Vec<_> = bytes.into_iter().map(|bytes| (0, bytes)).collect();
        assert_eq!(positions_of(&tokens, text, 2..10), 1..3);
    }
}
