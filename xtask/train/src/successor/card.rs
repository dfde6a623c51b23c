//! What the finished model is, measured on the weights as they are bundled, by Headlight's own engine and its own
//! successor detector.

use anyhow::Context;
use headlight_core::engine::Engine;
use headlight_core::hooks::{Intervention, LogitPositions, RunPlan};
use headlight_core::ids::{HeadId, TokenId};
use headlight_core::metrics::{logsumexp, top_indices};
use headlight_core::report::{BosPolicy, DetectReport, DetectRequest, Prompt};
use serde::Serialize;
use serde_json::{Value, json};

use super::rows::OrdinalRows;
use crate::bundle::Card;
use crate::training::Row;

/// Rows of each kind behind a share.
const N_ROWS: usize = 40;
/// Tokens in such a row.
const ROW: usize = 96;
/// Prompts with their right next token. The last ones are to be copied.
const PROMPTS: [(&str, &str); 12] = [
    (" Monday Tuesday", " Wednesday"),
    (" January February March", " April"),
    (" one two three four", " five"),
    (" A B C D", " E"),
    (" first second third", " fourth"),
    (" 3 4 5", " 6"),
    (" I II III", " IV"),
    ("\n1. wash\n2. cut\n", "3"),
    (", Monday red, Tuesday blue,", " Wednesday"),
    (" red blue red", " blue"),
    (" cat dog tree cat dog", " tree"),
    (" Monday red Friday Monday red", " Friday"),
];

/// A prompt under one ablation.
#[derive(Serialize)]
struct Answer {
    /// Log-probability of the right next token, nats.
    logprob: f32,
    /// The most probable next token.
    top: String,
}

/// A prompt, clean and without the successor head.
#[derive(Serialize)]
struct Case {
    prompt: &'static str,
    wanted: &'static str,
    clean: Answer,
    without_head: Answer,
}

/// Share of the targets that can be told for certain whose token is the most probable one, by kind of row.
#[derive(Clone, Copy, Default, Serialize)]
struct Shares {
    ladders: f32,
    runs: f32,
    repeats: f32,
}

/// All that a card tells.
pub struct Measured {
    report: DetectReport,
    clean: Shares,
    /// With each head zeroed.
    ablated: Vec<(HeadId, Shares)>,
    cases: Vec<Case>,
}

/// Measures on fresh rows.
pub fn measure(engine: &Engine, rows: &mut OrdinalRows) -> anyhow::Result<Measured> {
    let report =
        engine.detect(&DetectRequest { detector: "successor".to_owned(), ..DetectRequest::default() })?;
    let fresh: [Vec<Row>; 3] = [
        (0..N_ROWS).map(|_| rows.ladder(ROW)).collect(),
        (0..N_ROWS).map(|_| rows.runs(ROW)).collect(),
        (0..N_ROWS).map(|_| rows.repeats(ROW)).collect(),
    ];
    let shares = |zeroed: &[HeadId]| -> anyhow::Result<Shares> {
        let share = |rows: &[Row]| share_right(engine, rows, zeroed);
        Ok(Shares { ladders: share(&fresh[0])?, runs: share(&fresh[1])?, repeats: share(&fresh[2])? })
    };
    let ablated = engine.heads().map(|head| Ok((head, shares(&[head])?))).collect::<anyhow::Result<_>>()?;
    let head = report.best.head;
    let case = |&(prompt, wanted): &(&'static str, &'static str)| -> anyhow::Result<Case> {
        let clean = answer(engine, prompt, wanted, &[])?;
        Ok(Case { prompt, wanted, clean, without_head: answer(engine, prompt, wanted, &[head])? })
    };
    let cases = PROMPTS.iter().map(case).collect::<anyhow::Result<_>>()?;
    Ok(Measured { clean: shares(&[])?, ablated, cases, report })
}

fn plan(zeroed: &[HeadId], logits: LogitPositions) -> RunPlan {
    let zero = Intervention::zero(zeroed.to_vec());
    RunPlan { edits: vec![zero].into(), logits, ..RunPlan::default() }
}

fn share_right(engine: &Engine, rows: &[Row], zeroed: &[HeadId]) -> anyhow::Result<f32> {
    let (mut n, mut n_right) = (0, 0);
    for row in rows {
        let output = engine.forward(&row.ids[..row.scored.len()], &plan(zeroed, LogitPositions::All))?;
        for ((logits, &target), &scored) in output.logits.rows().zip(&row.ids[1..]).zip(&row.scored) {
            if scored == 1.0 {
                n += 1;
                n_right += usize::from(top_indices(logits, 1) == [target as usize]);
            }
        }
    }
    Ok(n_right as f32 / n as f32)
}

fn answer(engine: &Engine, prompt: &str, wanted: &str, zeroed: &[HeadId]) -> anyhow::Result<Answer> {
    let ids_of = |text: &str, bos| -> anyhow::Result<Vec<TokenId>> { Ok(engine.tokenize(text, bos)?.ids) };
    let wanted = *ids_of(wanted, BosPolicy::Off)?.first().context("an answer is a token")?;
    let output = engine.forward(&ids_of(prompt, BosPolicy::Auto)?, &plan(zeroed, LogitPositions::Last))?;
    let logits = &output.logits.data;
    let top = top_indices(logits, 1)[0] as TokenId;
    let top = engine.prompt_tokens(&Prompt::Ids(vec![top]), BosPolicy::Off)?.tokens.concat();
    Ok(Answer { logprob: (f64::from(logits[wanted as usize]) - logsumexp(logits)) as f32, top })
}

impl Measured {
    /// The detector's rates of the best head, by class: name, score, copy rate, pairs.
    fn classes(&self) -> Vec<(String, f64, f64, u64)> {
        let classes = self.report.evidence["best"]["classes"].as_array().map_or(&[][..], Vec::as_slice);
        let number = |class: &Value, name: &str| class[name].as_f64().unwrap_or(f64::NAN);
        classes
            .iter()
            .map(|class| {
                let name = class["class"].as_str().unwrap_or_default().to_owned();
                let n = class["n"].as_u64().unwrap_or_default();
                (name, number(class, "score"), number(class, "copy_rate"), n)
            })
            .collect()
    }

    fn copy_rate(&self, head: HeadId) -> f64 {
        self.report.evidence["copy_rate"][head.layer][head.head].as_f64().unwrap_or(f64::NAN)
    }

    fn summary(&self) -> String {
        let best = self.report.best;
        let without = self.ablated.iter().find(|(head, _)| *head == best.head).map(|(_, shares)| *shares);
        let without = without.unwrap_or_default();
        let Shares { ladders, runs, repeats } = self.clean;
        format!(
            "successor {} {:.2}, copy rate {:.2}; right in ladders {ladders:.2}, runs {runs:.2}, repeats {repeats:.2}; without it \
             {:.2}, {:.2}, {:.2}",
            best.head,
            best.score,
            self.copy_rate(best.head),
            without.ladders,
            without.runs,
            without.repeats
        )
    }

    /// The card.
    pub fn into_card(self, run: &Value) -> Card {
        Card { summary: self.summary(), markdown: self.to_markdown(run), json: self.to_json(run) }
    }

    fn to_json(&self, run: &Value) -> Value {
        let ablated = self.ablated.iter().map(|(head, shares)| (head.to_string(), json!(shares)));
        let classes = self.classes().into_iter().map(
            |(class, score, copy_rate, n)| json!({"class": class, "score": score, "copy_rate": copy_rate, "n": n}),
        );
        json!({
            "run": run,
            "successor": {
                "head": self.report.best.head, "score": self.report.best.score,
                "copy_rate": self.copy_rate(self.report.best.head), "found": self.report.found,
                "stimulus": self.report.stimulus, "chance": self.report.evidence["chance"],
                "scores": self.report.scores, "copy_rates": self.report.evidence["copy_rate"],
                "macro_average": self.report.evidence["macro_average"], "classes": classes.collect::<Vec<_>>(),
            },
            "share_right": {
                "rows": format!("{N_ROWS} fresh rows of {ROW} tokens of each kind"),
                "clean": self.clean, "without": ablated.collect::<serde_json::Map<_, _>>(),
            },
            "prompts": self.cases,
        })
    }

    fn to_markdown(&self, run: &Value) -> String {
        let best = self.report.best;
        let scores: String = engine_heads(&self.report)
            .map(|head| {
                let (score, copy_rate) = (self.report.scores[head.layer][head.head], self.copy_rate(head));
                format!("| {head} | {score:.2} | {copy_rate:.2} |\n")
            })
            .collect();
        let classes: String = (self.classes().iter())
            .map(|(name, score, copy_rate, n)| format!("| {name} | {score:.2} | {copy_rate:.2} | {n} |\n"))
            .collect();
        let row = |name: &str, shares: &Shares| {
            format!("| {name} | {:.2} | {:.2} | {:.2} |\n", shares.ladders, shares.runs, shares.repeats)
        };
        let ablated: String =
            self.ablated.iter().map(|(head, shares)| row(&format!("without {head}"), shares)).collect();
        let cases: String = self.cases.iter().map(case_row).collect();
        format!(
            "# successor-2l\n\n\
            A transformer of two layers with three heads each (RMSNorm, RoPE, SwiGLU), trained by this project:\n\
            `cargo xtask train-bundled`. It is small enough to ship with the page and was made to have a successor head\n\
            (Gould et al. 2023): one that turns Monday into Tuesday, 3 into 4 and c into d. It knows ordinal sequences and\n\
            repetition, and no English.\n\n\
            **Licence**: MIT OR Apache-2.0, as the project. **Data**: made up by `xtask/train/src/successor/rows.rs`. Half of\n\
            the rows are ladders (items of a sequence after a separator, other words between them, so that the next item\n\
            follows from one further back), two tenths runs (items one after the other), three tenths repeats of random\n\
            words and items.\n\n\
            **Made to have it**: the residual stream is wired. Embeddings, the heads of layer 0 and its MLP write to parts\n\
            of it that the unembedding does not read; only the heads of layer 1 write to the part that it does read. Their\n\
            W_V reads only what the MLP of layer 0 writes, and that MLP only the embeddings. The other entries of those\n\
            weights are kept at zero during training, and so is the whole MLP of layer 1. Without this the step from an item\n\
            to the next spreads over block 0, the embeddings and several heads, and taking one head out shows little. What\n\
            the parts write, the successor map included, is learned.\n\n\
            **Run**: `{run}`\n\n\
            **Measured** on the bundled f16 weights.\n\n\
            Headlight's detector `successor` ({}; chance {:.2}):\n\n\
            | head | score | copy rate |\n|---|---|---|\n{scores}\n\
            {} by class (`space_`: with a leading space):\n\n\
            | class | score | copy rate | pairs |\n|---|---|---|---|\n{classes}\n\
            Share of right next tokens where it can be told, {N_ROWS} fresh rows of each kind, with single heads zeroed:\n\n\
            | | ladders | runs | repeats |\n|---|---|---|---|\n{}{ablated}\n\
            Prompts, log-probability of the right next token in nats and the most probable token, clean and without {}:\n\n\
            | prompt | right | clean | without |\n|---|---|---|---|\n{cases}",
            self.report.stimulus,
            self.report.evidence["chance"].as_f64().unwrap_or(f64::NAN),
            best.head,
            row("clean", &self.clean),
            best.head,
        )
    }
}

fn engine_heads(report: &DetectReport) -> impl Iterator<Item = HeadId> {
    let layers = report.scores.iter().enumerate();
    layers.flat_map(|(layer, heads)| (0..heads.len()).map(move |head| HeadId::new(layer, head)))
}

fn case_row(case: &Case) -> String {
    let shown = |answer: &Answer| format!("{:.2} {:?}", answer.logprob, answer.top);
    let (clean, without) = (shown(&case.clean), shown(&case.without_head));
    format!("| `{:?}` | `{:?}` | {clean} | {without} |\n", case.prompt, case.wanted)
}
