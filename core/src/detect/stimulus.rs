//! Tokens made to provoke a behaviour: seeded, so that everyone gets the same ones.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::ids::TokenId;

/// Sequences of token ids with a sentence on how they were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stimulus {
    /// One forward pass each.
    pub sequences: Vec<Vec<TokenId>>,
    /// How they were made, for the report.
    pub description: String,
}

impl Stimulus {
    /// The caller's own sequences, used as they are.
    pub fn given(sequences: Vec<Vec<TokenId>>) -> Self {
        let description = format!("{} given sequences, used as they are", sequences.len());
        Self { sequences, description }
    }
}

/// How blocks of random tokens are drawn.
#[derive(Clone, Copy, Debug)]
pub struct RepeatedBlocks {
    /// Vocabulary size.
    pub d_vocab: usize,
    /// Put first, if any.
    pub bos: Option<TokenId>,
    /// Smallest block length.
    pub min_len: usize,
    /// Largest block length; the same as the smallest for a fixed one.
    pub max_len: usize,
    /// Times that a block is read.
    pub n_repeats: usize,
    /// Sequences.
    pub n_draws: usize,
    /// Seed.
    pub seed: u64,
}

impl RepeatedBlocks {
    /// `[BOS] r r …` with the tokens of `r` distinct. The most common 2 % and the rarest 10 % of the vocabulary are left
    /// out, going by id: a BPE vocabulary is ordered by merges, commonest first.
    pub fn draw(self) -> Stimulus {
        let band = self.band();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let sequences = (0..self.n_draws).map(|_| {
            let len = self.min_len + below(&mut rng, self.max_len - self.min_len + 1);
            let mut block: Vec<TokenId> = Vec::with_capacity(len);
            // A vocabulary smaller than the block cannot give distinct tokens.
            while block.len() < len.min(band.len()) {
                let id = (band.start + below(&mut rng, band.len())) as TokenId;
                if !block.contains(&id) {
                    block.push(id);
                }
            }
            let repeats = (0..self.n_repeats).flat_map(|_| block.iter().copied());
            self.bos.into_iter().chain(repeats).collect()
        });
        let sequences = sequences.collect();
        let length = match self.min_len == self.max_len {
            true => format!("{}", self.min_len),
            false => format!("{} to {}", self.min_len, self.max_len),
        };
        let bos = self.bos.map_or_else(|| "no BOS".to_owned(), |id| format!("BOS {id} in front"));
        let description = format!(
            "{} draws of {length} distinct random tokens (ids {} to {}), repeated {} times, {bos}, seed {}",
            self.n_draws,
            band.start,
            band.end - 1,
            self.n_repeats,
            self.seed,
        );
        Stimulus { sequences, description }
    }

    fn band(self) -> std::ops::Range<usize> {
        let start = (self.d_vocab / 50).max(1).min(self.d_vocab - 1);
        start..(self.d_vocab - self.d_vocab / 10).max(start + 1)
    }
}

/// Seeded choices, the same on every machine.
pub struct Choice(ChaCha8Rng);

impl Choice {
    /// Choices of a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// `n` distinct of these, or all where there are fewer.
    pub fn some_of<T: Copy>(&mut self, items: &[T], n: usize) -> Vec<T> {
        let mut left = items.to_vec();
        let n = n.min(left.len());
        (0..n).map(|_| left.swap_remove(below(&mut self.0, left.len()))).collect()
    }
}

/// A number below `n` from the generator's raw words, so that no version of a sampling library changes the draws.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    (rng.next_u64() % n as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: RepeatedBlocks = RepeatedBlocks {
        d_vocab: 1000,
        bos: Some(7),
        min_len: 25,
        max_len: 25,
        n_repeats: 4,
        n_draws: 3,
        seed: 1,
    };

    #[test]
    fn blocks_repeat_and_their_tokens_are_distinct_and_neither_common_nor_rare() {
        let stimulus = BLOCKS.draw();
        assert_eq!(stimulus.sequences.len(), 3);
        for sequence in &stimulus.sequences {
            assert_eq!((sequence.len(), sequence[0]), (101, 7));
            let (block, rest) = sequence[1..].split_at(25);
            assert!(rest.chunks(25).all(|copy| copy == block));
            assert!(block.iter().all(|id| (20..900).contains(id)));
            let distinct: std::collections::BTreeSet<_> = block.iter().collect();
            assert_eq!(distinct.len(), 25);
        }
        assert_ne!(stimulus.sequences[0], stimulus.sequences[1]);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_and_another_seed_others() {
        assert_eq!(BLOCKS.draw(), BLOCKS.draw());
        assert_ne!(BLOCKS.draw().sequences, RepeatedBlocks { seed: 2, ..BLOCKS }.draw().sequences);
        // Pinned: a stored score names its seed, so the tokens behind it must never change.
        assert_eq!(BLOCKS.draw().sequences[0][1..4], PINNED);
    }

    const PINNED: [TokenId; 3] = [815, 665, 726];

    #[test]
    fn lengths_vary_when_asked_and_a_tiny_vocabulary_ends() {
        let varied =
            RepeatedBlocks { min_len: 15, max_len: 34, n_draws: 20, bos: None, n_repeats: 2, ..BLOCKS };
        let lengths: std::collections::BTreeSet<_> = varied.draw().sequences.iter().map(Vec::len).collect();
        assert!(lengths.len() > 5 && lengths.iter().all(|len| (30..=68).contains(len)), "{lengths:?}");
        let tiny = RepeatedBlocks { d_vocab: 4, ..BLOCKS }.draw();
        assert!(tiny.sequences[0].len() < 20);
    }
}
