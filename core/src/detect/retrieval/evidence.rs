//! What a retrieval report shows of each prompt: its tokens, what was generated, and where the heads that copied looked; and what of
//! it a part's report tells of every head, so that parts become one report.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::copies::CopyScores;
use super::haystack::Placement;
use super::{PromptResult, RetrievalPrompt, SUCCESS_RECALL, Scoring};
use crate::detect::{Draws, Findings, HeadTable, OfDraw};
use crate::ids::{HeadId, TokenId};
use crate::tokenizer::Tokenizer;

/// One prompt with its answer, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ReadPrompt {
    /// How a head's copying steps become the score.
    pub scoring: Scoring,
    /// Scores both ways.
    pub scores: CopyScores,
    /// Tokens at its beginning that are those of the prompt before.
    pub n_shared: usize,
    /// Forward passes that it took.
    pub n_passes: usize,
    /// The position with the largest attention, in the prompt and, behind it, in what was generated: `[layer][head][generated token]`.
    pub argmax_keys: Vec<Vec<Vec<usize>>>,
    /// What the report shows of it, without where heads looked.
    pub shown: ShownPrompt,
}

/// A prompt as the report's evidence shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ShownPrompt {
    /// Where the needle was put; null of a prompt of the caller's.
    pub placement: Option<Placement>,
    /// Its tokens' number.
    pub n_tokens: usize,
    /// First position of the answer, and the position after its last.
    pub span: [usize; 2],
    /// Its tokens as text.
    pub tokens: Vec<String>,
    /// The answer as it stands in the prompt.
    pub answer: String,
    /// What was generated.
    pub generated: String,
    /// The same as ids.
    pub generated_ids: Vec<TokenId>,
    /// The same as text, token by token.
    pub generated_tokens: Vec<String>,
    /// Share of the answer's token ids that were generated, 0 to 1.
    pub recall: f32,
    /// Whether that is more than half.
    pub succeeded: bool,
}

/// What one prompt gave.
pub(super) fn of_draw(
    prompt: &RetrievalPrompt,
    result: PromptResult,
    scoring: Scoring,
    tokenizer: &Tokenizer,
) -> OfDraw {
    let spelt =
        |ids: &[TokenId]| -> Vec<String> { ids.iter().map(|&id| tokenizer.spelling(id).text).collect() };
    let generated_ids: Vec<TokenId> = result.generated.iter().map(|token| token.id).collect();
    let generated_tokens = spelt(&generated_ids);
    let argmax_keys = result.scores.set.iter().enumerate().map(|(layer, heads)| {
        let of_head =
            |head: usize| result.generated.iter().map(|token| token.argmax_keys[layer][head]).collect();
        (0..heads.len()).map(of_head).collect()
    });
    let shown = ShownPrompt {
        placement: prompt.placement.clone(),
        n_tokens: prompt.ids.len(),
        span: [prompt.span.start, prompt.span.end],
        tokens: spelt(&prompt.ids),
        answer: spelt(prompt.answer()).concat(),
        generated: generated_tokens.concat(),
        generated_ids,
        generated_tokens,
        recall: result.recall,
        succeeded: result.succeeded(),
    };
    OfDraw {
        scores: result.scores.by(scoring).clone(),
        copies: None,
        prompt: Some(ReadPrompt {
            scoring,
            argmax_keys: argmax_keys.collect(),
            n_shared: prompt.n_shared,
            n_passes: result.n_passes,
            scores: result.scores,
            shown,
        }),
    }
}

/// What the prompts gave together, but for what the heads' absence does.
pub(in crate::detect) fn findings(stimulus: String, of_draws: &[OfDraw]) -> Findings {
    let prompts: Vec<&ReadPrompt> = of_draws.iter().filter_map(|of_draw| of_draw.prompt.as_ref()).collect();
    let scoring = prompts.first().map(|prompt| prompt.scoring).unwrap_or_default();
    let over = |is_wanted: fn(&ShownPrompt) -> bool, scoring: Scoring| {
        let mut draws = Draws::default();
        let wanted = prompts.iter().filter(|prompt| is_wanted(&prompt.shown));
        wanted.for_each(|prompt| draws.push(prompt.scores.by(scoring)));
        draws
    };
    let mean = |draws: Draws| (draws.n() > 0).then(|| draws.mean());
    let all = |scoring| over(|_| true, scoring);
    let other =
        |wanted: Scoring| Some(wanted).filter(|wanted| *wanted != scoring).and_then(|_| mean(all(wanted)));
    let succeeded = |scoring| over(|shown| shown.succeeded, scoring);
    let scores = all(scoring);
    let copying = copying_heads(&scores.mean());
    let sum = |of: fn(&ReadPrompt) -> usize| prompts.iter().map(|prompt| of(prompt)).sum::<usize>();
    let evidence = json!({
        "scoring": scoring,
        "set_scores": other(Scoring::Set),
        "count_scores": other(Scoring::Count),
        "succeeded": {
            "recall_above": SUCCESS_RECALL,
            "n": succeeded(Scoring::Set).n(),
            "set_scores": mean(succeeded(Scoring::Set)),
            "count_scores": mean(succeeded(Scoring::Count)),
        },
        "n_tokens": sum(|prompt| prompt.shown.n_tokens),
        "n_tokens_shared": sum(|prompt| prompt.n_shared),
        "n_passes": sum(|prompt| prompt.n_passes),
        "prompts": prompts.iter().map(|prompt| shown(prompt, &copying)).collect::<Vec<_>>(),
        "copying_heads": copying,
        "causal": null,
    });
    Findings { stimulus, n: scores.n(), scores: scores.mean(), spread: scores.spread(), evidence }
}

/// Heads with a score above 0, in reading order: the only ones whose looks are told.
fn copying_heads(scores: &HeadTable) -> Vec<HeadId> {
    let heads = scores.iter().enumerate().flat_map(|(layer, heads)| {
        heads.iter().enumerate().map(move |(head, &score)| (HeadId::new(layer, head), score))
    });
    heads.filter(|(_, score)| *score > 0.0).map(|(head, _)| head).collect()
}

/// A prompt, and under `looked_at` where the heads that copied looked: `[copying head][generated token]`.
fn shown(prompt: &ReadPrompt, copying: &[HeadId]) -> Value {
    let looked_at: Vec<&Vec<usize>> =
        copying.iter().map(|head| &prompt.argmax_keys[head.layer][head.head]).collect();
    let mut shown = json!(prompt.shown);
    shown["looked_at"] = json!(looked_at);
    shown
}
