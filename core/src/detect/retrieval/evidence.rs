//! What a retrieval report shows of each prompt: its tokens, what was generated, and where the heads that copied looked.

use serde_json::{Value, json};

use super::{PromptResult, RetrievalPrompt};
use crate::detect::HeadTable;
use crate::ids::{HeadId, TokenId};
use crate::tokenizer::Tokenizer;

/// Heads with a score above 0, in reading order: the only ones whose looks are told.
pub(super) fn copying_heads(scores: &HeadTable) -> Vec<HeadId> {
    let heads = scores.iter().enumerate().flat_map(|(layer, heads)| {
        heads.iter().enumerate().map(move |(head, &score)| (HeadId::new(layer, head), score))
    });
    heads.filter(|(_, score)| *score > 0.0).map(|(head, _)| head).collect()
}

/// One prompt with its result. `looked_at` is `[copying head][generated token]`, positions in the prompt and, behind it,
/// in what was generated.
pub(super) fn of_prompt(
    prompt: &RetrievalPrompt,
    result: &PromptResult,
    copying: &[HeadId],
    tokenizer: &Tokenizer,
) -> Value {
    let spelt =
        |ids: &[TokenId]| -> Vec<String> { ids.iter().map(|&id| tokenizer.spelling(id).text).collect() };
    let generated_ids = result.ids();
    let generated = spelt(&generated_ids);
    let looked_at: Vec<Vec<usize>> = (copying.iter())
        .map(|head| result.generated.iter().map(|token| token.argmax_keys[head.layer][head.head]).collect())
        .collect();
    json!({
        "placement": prompt.placement,
        "n_tokens": prompt.ids.len(),
        "span": [prompt.span.start, prompt.span.end],
        "tokens": spelt(&prompt.ids),
        "answer": spelt(prompt.answer()).concat(),
        "generated": generated.concat(),
        "generated_ids": generated_ids,
        "generated_tokens": generated,
        "looked_at": looked_at,
        "recall": result.recall,
        "succeeded": result.succeeded(),
    })
}
