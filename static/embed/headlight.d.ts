// Types of window.headlight and of <headlight-view>. Made from the Rust types by `HEADLIGHT_BLESS=1 cargo test
// -p headlight-app types`; do not edit. Heads are written "L5H1", counting from 0.

export type JsonValue = number | string | boolean | Array<JsonValue> | { [key in string]: JsonValue } | null;

export type HeadId = string;

export type Prompt = { "text": string } | { "ids": Array<number> };

export type BosPolicy = "auto" | "on" | "off";

export type PatternTarget = "identity" | "uniform" | "first" | "previous";

export type ActivationDirection = Array<number> | { 
/**
 * The token, alone.
 */
unembedding_of: Prompt, };

export type Edit = { "kind": "zero", } | { "kind": "mean", 
/**
 * The reference set; this prompt when absent.
 */
over?: Array<Prompt> | null, } | { "kind": "scale", 
/**
 * The factor.
 */
alpha: number, } | { "kind": "patch", 
/**
 * The other run's prompt; this prompt without edits when absent.
 */
from?: Prompt | null, 
/**
 * Which of its positions goes to each of the edit's `positions`; the same ones when absent.
 */
from_positions?: Array<number> | null, } | { "kind": "project_out", 
/**
 * The direction `d`.
 */
direction: ActivationDirection, 
/**
 * How much of it goes.
 */
strength: number, } | { "kind": "freeze_pattern", 
/**
 * The other run's prompt; this prompt without edits when absent.
 */
from?: Prompt | null, } | { "kind": "interpolate_pattern", 
/**
 * Towards what.
 */
towards: PatternTarget, 
/**
 * From 0 to 1.
 */
strength: number, } | { "kind": "pattern_temperature", 
/**
 * Above 0.
 */
tau: number, } | { "kind": "knockout", 
/**
 * `[query_pos, key_pos]`.
 */
edges: Array<[number, number]>, };

export type Sites = { 
/**
 * Heads: their `z`, before W_O, or their attention.
 */
heads: Array<HeadId>, 
/**
 * Layers whose attention and MLP outputs are both edited.
 */
layers: Array<number>, 
/**
 * Layers whose attention output is edited.
 */
attn_out: Array<number>, 
/**
 * Layers whose MLP output is edited.
 */
mlp_out: Array<number>, 
/**
 * Layers before which the residual stream is edited.
 */
resid_pre: Array<number>, };

export type Intervention = Edit & Partial<Sites> & { positions?: Array<number> | null };

export type ModelInfo = { 
/**
 * Name from the file's metadata, or the file's name.
 */
name: string, 
/**
 * Family as the checkpoint names it, such as `llama`.
 */
family: string, 
/**
 * sha256 of the weights file (of the concatenated shards when there are several), hex.
 */
sha256: string, 
/**
 * sha256 of the tokenizer's vocabulary, hex: every token's spelling in the order of ids, each after its length. The same
 * vocabulary gives the same hash, whatever file it came in.
 */
tokenizer_sha256: string, 
/**
 * Layers.
 */
n_layers: number, 
/**
 * Query heads a layer.
 */
n_heads: number, 
/**
 * Key/value heads a layer; query head `h` reads `h / (n_heads / n_kv_heads)`.
 */
n_kv_heads: number, 
/**
 * Width of the residual stream.
 */
d_model: number, 
/**
 * Width of a head.
 */
d_head: number, 
/**
 * Width of the MLP; 0 for an attention-only model.
 */
d_mlp: number, 
/**
 * Vocabulary size.
 */
d_vocab: number, 
/**
 * Longest prompt in tokens.
 */
n_ctx: number, 
/**
 * The id a BOS would have, if the model names one.
 */
bos_id: number | null, 
/**
 * Whether the model's own metadata asks for a BOS.
 */
adds_bos: boolean, 
/**
 * Parameters, counted once where tied.
 */
n_params: number, };

export type Golden = { 
/**
 * The prompt.
 */
ids: Array<number>, 
/**
 * After each id the logits of all of them, `[pos, id]`.
 */
logits: Array<Array<number>>, };

export type TokensReport = { 
/**
 * Token ids, a BOS included if one was added.
 */
ids: Array<number>, 
/**
 * Decoded text of each token; a token that is part of a character decodes to U+FFFD.
 */
tokens: Array<string>, 
/**
 * The vocabulary's own spelling of each token, such as `Ġcapital`.
 */
pieces: Array<string>, 
/**
 * The bytes of each token, in hex.
 */
bytes: Array<string>, 
/**
 * Whether the first id is a BOS that was added.
 */
added_bos: boolean, };

export type TokenLogit = { 
/**
 * Vocabulary index.
 */
id: number, 
/**
 * Decoded text.
 */
token: string, 
/**
 * The vocabulary's own spelling.
 */
piece: string, 
/**
 * Logit.
 */
logit: number, 
/**
 * Natural logarithm of the probability, nats.
 */
logprob: number, };

export type Provenance = { 
/**
 * Model's name.
 */
model: string, 
/**
 * sha256 of its weights, hex.
 */
model_sha256: string, 
/**
 * Engine and precision, such as `cpu-f32`.
 */
engine: string, 
/**
 * Version of Headlight.
 */
build: string, };

export type RunRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * How many of the most probable next tokens to report.
 */
top: number, 
/**
 * Edits, applied in order.
 */
interventions: Array<Intervention>, 
/**
 * Tokens to report beside the most probable ones.
 */
watch: Array<number>, } & ({ "text": string } | { "ids": Array<number> });

export type RunReport = { 
/**
 * Token ids of the prompt.
 */
ids: Array<number>, 
/**
 * Decoded text of each.
 */
tokens: Array<string>, 
/**
 * Most probable next tokens, largest logit first.
 */
logits_top: Array<TokenLogit>, 
/**
 * The tokens of the request's `watch`, in its order.
 */
watched?: Array<TokenLogit>, 
/**
 * Logarithm of the sum of exponentials of all logits at the last position.
 */
logsumexp: number, 
/**
 * Loss of each target `ids[1..]` given what precedes it, nats; one fewer than `ids`.
 */
nll_nats: Array<number>, 
/**
 * What produced the numbers.
 */
provenance: Provenance, };

export type PatternReport = { 
/**
 * The head.
 */
head: HeadId, 
/**
 * Token ids of the prompt.
 */
ids: Array<number>, 
/**
 * Decoded text of each.
 */
tokens: Array<string>, 
/**
 * `[query_pos][key_pos]`, each row summing to 1.
 */
pattern: Array<Array<number>>, 
/**
 * What produced the numbers.
 */
provenance: Provenance, };

export type AttentionTarget = "induction" | "previous_token" | "duplicate_token" | "first_token" | "current_token";

export type Threshold = { 
/**
 * Scores above this name a head.
 */
value: number, 
/**
 * Who drew the line.
 */
source: string, };

export type Doc = { 
/**
 * Stable name, such as `previous_token`.
 */
id: string, 
/**
 * Raised whenever the same input can give another score.
 */
version: number, 
/**
 * As a label.
 */
title: string, 
/**
 * What a head that scores high does.
 */
looks_for: string, 
/**
 * Why anyone wants to know.
 */
why_it_matters: string, 
/**
 * Definition and formula.
 */
score: string, 
/**
 * What the model reads.
 */
stimulus: string, 
/**
 * Authors, year, title.
 */
source: string, 
/**
 * What else scores high, and what does not although it should.
 */
known_confusions: string, 
/**
 * From which score on a head is called by this name; `None` where the score names nothing by itself.
 */
threshold: Threshold | null, 
/**
 * Whether the score is read off the weights, with no prompt at all.
 */
weights_only: boolean, };

export type DetectRequest = { 
/**
 * The detector's id, such as `induction`.
 */
detector: string, 
/**
 * Seed of its stimulus.
 */
seed: number, 
/**
 * Whether a BOS comes before generated sequences.
 */
bos: BosPolicy, 
/**
 * Sequences in place of generated ones, used as they are (no BOS is added).
 */
sequences: Array<Array<number>> | null, 
/**
 * The detector's own parameters; see its description.
 */
params: JsonValue, 
/**
 * How products are computed.
 */
precision?: Precision, 
/**
 * Of a stimulus' draws those from `start` to before `end`, for [`DetectReport::whole`] to put together; all when absent.
 */
draws?: { start: number, end: number, } | null, };

export type CopyLosses = { 
/**
 * Over the first copy, without its first token where nothing precedes it.
 */
first_nats: number, 
/**
 * Over the second copy without its first token, which nothing foretells.
 */
second_nats: number, };

export type Scoring = "set" | "count";

export type CopyScores = { 
/**
 * `|g ∩ k| / |k|` over sets of token ids; 0 to 1.
 */
set: Array<Array<number>>, 
/**
 * Copying steps over the answer's length; above 1 when a head copies one token often.
 */
count: Array<Array<number>>, };

export type Placement = { 
/**
 * Which of the detector's own.
 */
needle: string, 
/**
 * Tokens of the prompt at most.
 */
length: number, 
/**
 * Where in the haystack, percent of its sentences.
 */
depth_percent: number, };

export type ShownPrompt = { 
/**
 * Where the needle was put; null of a prompt of the caller's.
 */
placement: Placement | null, 
/**
 * Its tokens' number.
 */
n_tokens: number, 
/**
 * First position of the answer, and the position after its last.
 */
span: [number, number], 
/**
 * Its tokens as text.
 */
tokens: Array<string>, 
/**
 * The answer as it stands in the prompt.
 */
answer: string, 
/**
 * What was generated.
 */
generated: string, 
/**
 * The same as ids.
 */
generated_ids: Array<number>, 
/**
 * The same as text, token by token.
 */
generated_tokens: Array<string>, 
/**
 * Share of the answer's token ids that were generated, 0 to 1.
 */
recall: number, 
/**
 * Whether that is more than half.
 */
succeeded: boolean, };

export type ReadPrompt = { 
/**
 * How a head's copying steps become the score.
 */
scoring: Scoring, 
/**
 * Scores both ways.
 */
scores: CopyScores, 
/**
 * Tokens at its beginning that are those of the prompt before.
 */
n_shared: number, 
/**
 * Forward passes that it took.
 */
n_passes: number, 
/**
 * The position with the largest attention, in the prompt and, behind it, in what was generated: `[layer][head][generated token]`.
 */
argmax_keys: Array<Array<Array<number>>>, 
/**
 * What the report shows of it, without where heads looked.
 */
shown: ShownPrompt, };

export type OfDraw = { 
/**
 * `[layer][head]`.
 */
scores: Array<Array<number>>, 
/**
 * The losses on its copies, where they are compared.
 */
copies: CopyLosses | null, 
/**
 * What a prompt with an answer in it gave, where the draw is one.
 */
prompt: ReadPrompt | null, };

export type Precision = "exact" | "fast";

export type DetectReport = { 
/**
 * The detector's id.
 */
detector: string, 
/**
 * Its version: the same request can give other scores under another one.
 */
version: number, 
/**
 * How a score is defined.
 */
definition: string, 
/**
 * What the model read.
 */
stimulus: string, 
/**
 * Draws, or for a weights-only score the items behind it.
 */
n: number, 
/**
 * `[layer][head]`.
 */
scores: Array<Array<number>>, 
/**
 * Standard deviation over draws, `[layer][head]`; null of fewer than two draws.
 */
spread: Array<Array<number>> | null, 
/**
 * From which score on a head is called by the detector's name; null where the score names nothing.
 */
threshold: number | null, 
/**
 * Heads above the threshold, the strongest first; empty is a result: none found.
 */
found: Array<HeadId>, 
/**
 * The strongest head, found or not.
 */
best: HeadScore, 
/**
 * What stands behind the scores; the shape is the detector's own.
 */
evidence: JsonValue, 
/**
 * What each draw gave, where only some were asked for.
 */
of_draws?: Array<OfDraw> | null, 
/**
 * What produced the numbers.
 */
provenance: DetectProvenance, };

export type DetectProvenance = { 
/**
 * The request.
 */
request: DetectRequest, 
/**
 * Model's name.
 */
model: string, 
/**
 * sha256 of its weights, hex.
 */
model_sha256: string, 
/**
 * Engine and precision, such as `cpu-f32`.
 */
engine: string, 
/**
 * Version of Headlight.
 */
build: string, };

export type HeadScore = { 
/**
 * The head.
 */
head: HeadId, 
/**
 * Its score.
 */
score: number, };

export type Metric = "logprob" | "logit" | "logit_diff" | "kl" | "loss";

export type MetricSpec = { 
/**
 * Which number.
 */
metric: Metric, 
/**
 * The token of `logprob`, `logit` and `logit_diff`; the clean run's most probable one when absent.
 */
token: number | null, 
/**
 * The other token of `logit_diff`; the clean run's most probable other one when absent.
 */
versus: number | null, 
/**
 * Where: for `loss` the positions of the tokens to be foretold (all but the first when absent), for the others the
 * positions whose next token is looked at (the last when absent).
 */
positions: Array<number> | null, };

export type Targets = "heads" | "mlps" | { "sets": Array<Array<HeadId>> };

export type SweepSpec = { 
/**
 * What is done to each; zero when absent.
 */
edit: Edit, 
/**
 * At which positions; all when absent.
 */
edit_positions: Array<number> | null, 
/**
 * What is edited in turn.
 */
targets: Targets, 
/**
 * In which layers, and in this order; all when absent, from the top: those passes are the shortest, so that the first results
 * come soonest. A sweep in parts gives the same numbers, bit for bit.
 */
layers?: Array<number> | null, 
/**
 * Which number.
 */
metric: Metric, 
/**
 * The token of `logprob`, `logit` and `logit_diff`; the clean run's most probable one when absent.
 */
token: number | null, 
/**
 * The other token of `logit_diff`; the clean run's most probable other one when absent.
 */
versus: number | null, 
/**
 * Where: for `loss` the positions of the tokens to be foretold (all but the first when absent), for the others the
 * positions whose next token is looked at (the last when absent).
 */
positions: Array<number> | null, };

export type SweepRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * How products are computed.
 */
precision?: Precision, } & ({ "text": string } | { "ids": Array<number> }) & { 
/**
 * What is done to each; zero when absent.
 */
edit: Edit, 
/**
 * At which positions; all when absent.
 */
edit_positions: Array<number> | null, 
/**
 * What is edited in turn.
 */
targets: Targets, 
/**
 * In which layers, and in this order; all when absent, from the top: those passes are the shortest, so that the first results
 * come soonest. A sweep in parts gives the same numbers, bit for bit.
 */
layers?: Array<number> | null, 
/**
 * Which number.
 */
metric: Metric, 
/**
 * The token of `logprob`, `logit` and `logit_diff`; the clean run's most probable one when absent.
 */
token: number | null, 
/**
 * The other token of `logit_diff`; the clean run's most probable other one when absent.
 */
versus: number | null, 
/**
 * Where: for `loss` the positions of the tokens to be foretold (all but the first when absent), for the others the
 * positions whose next token is looked at (the last when absent).
 */
positions: Array<number> | null, };

export type Library = "transformer_lens" | "nnsight";

export type ScriptRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * Edits, applied in order.
 */
interventions: Array<Intervention>, 
/**
 * For which library.
 */
library: Library, 
/**
 * The model's repository on the Hugging Face hub, where it is known.
 */
repo: string | null, 
/**
 * Address of the folder with the very files that are loaded: config.json, tokenizer.json and model.safetensors.
 */
files: string | null, 
/**
 * Whether the run is on NDIF.
 */
remote: boolean, } & ({ "text": string } | { "ids": Array<number> });

export type SweepReport = { 
/**
 * Token ids of the prompt.
 */
ids: Array<number>, 
/**
 * The metric.
 */
metric: Metric, 
/**
 * The metric's token, where it has one.
 */
token: number | null, 
/**
 * The token that it is compared with, where there is one.
 */
versus: number | null, 
/**
 * The metric without an edit.
 */
clean: number, 
/**
 * Edited minus clean, `[layer][head]`, `[layer][0]` of MLPs, or `[0][set]` of sets of heads.
 */
effects: Array<Array<number>>, 
/**
 * What produced the numbers.
 */
provenance: Provenance, 
/**
 * The request.
 */
request: SweepRequest, };

export type DlaSpec = { 
/**
 * Whose logit; the most probable token at the position when absent.
 */
token: number | null, 
/**
 * When given, the attribution is of the token's logit minus this one's.
 */
versus: number | null, 
/**
 * The position whose next token is attributed; the last when absent.
 */
position: number | null, };

export type DlaFindings = { 
/**
 * Whose logit.
 */
token: number, 
/**
 * Whose logit is subtracted, if any.
 */
versus: number | null, 
/**
 * At which position.
 */
position: number, 
/**
 * The logit (or difference) that the run computed.
 */
logit: number, 
/**
 * Sum of the parts below.
 */
sum_of_parts: number, 
/**
 * Mean logit over the vocabulary; 0 for a difference.
 */
mean_logit: number, 
/**
 * The final norm's scale, held fixed.
 */
final_rms: number, 
/**
 * The embedding's part.
 */
embed: number, 
/**
 * Each head's part, `[layer][head]`.
 */
heads: Array<Array<number>>, 
/**
 * Each MLP's part, `[layer]`; empty without MLPs.
 */
mlps: Array<number>, 
/**
 * The embedding's part of the logit's distance from the vocabulary's mean.
 */
embed_centered: number, 
/**
 * Each head's part of it, `[layer][head]`.
 */
heads_centered: Array<Array<number>>, 
/**
 * Each MLP's part of it.
 */
mlps_centered: Array<number>, 
/**
 * Receipt: the largest difference, over layers and coordinates, between attention's output at the position and the sum
 * of its heads' outputs.
 */
receipt: number, };

export type DlaRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * Edits in force.
 */
interventions: Array<Intervention>, } & ({ "text": string } | { "ids": Array<number> }) & { 
/**
 * Whose logit; the most probable token at the position when absent.
 */
token: number | null, 
/**
 * When given, the attribution is of the token's logit minus this one's.
 */
versus: number | null, 
/**
 * The position whose next token is attributed; the last when absent.
 */
position: number | null, };

export type TokenDirect = { 
/**
 * Vocabulary index.
 */
id: number, 
/**
 * Decoded text.
 */
token: string, 
/**
 * Change of its logit.
 */
logit: number, };

export type DlaReport = { 
/**
 * Token ids of the prompt.
 */
ids: Array<number>, 
/**
 * The token's text.
 */
token_text: string, 
/**
 * The other token's text, of a difference.
 */
versus_text: string | null, 
/**
 * What produced the numbers.
 */
provenance: Provenance, 
/**
 * Whose logit.
 */
token: number, 
/**
 * Whose logit is subtracted, if any.
 */
versus: number | null, 
/**
 * At which position.
 */
position: number, 
/**
 * The logit (or difference) that the run computed.
 */
logit: number, 
/**
 * Sum of the parts below.
 */
sum_of_parts: number, 
/**
 * Mean logit over the vocabulary; 0 for a difference.
 */
mean_logit: number, 
/**
 * The final norm's scale, held fixed.
 */
final_rms: number, 
/**
 * The embedding's part.
 */
embed: number, 
/**
 * Each head's part, `[layer][head]`.
 */
heads: Array<Array<number>>, 
/**
 * Each MLP's part, `[layer]`; empty without MLPs.
 */
mlps: Array<number>, 
/**
 * The embedding's part of the logit's distance from the vocabulary's mean.
 */
embed_centered: number, 
/**
 * Each head's part of it, `[layer][head]`.
 */
heads_centered: Array<Array<number>>, 
/**
 * Each MLP's part of it.
 */
mlps_centered: Array<number>, 
/**
 * Receipt: the largest difference, over layers and coordinates, between attention's output at the position and the sum
 * of its heads' outputs.
 */
receipt: number, };

export type LensRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * Edits in force.
 */
interventions: Array<Intervention>, 
/**
 * The token followed through the layers; each position's own next token when absent.
 */
token: number | null, } & ({ "text": string } | { "ids": Array<number> });

export type LensCell = { 
/**
 * The most probable next token.
 */
id: number, 
/**
 * Its log-probability, nats.
 */
logprob: number, 
/**
 * Log-probability of the followed token, nats: the one asked for, else the token that does come next (at the last
 * position, the one the whole model finds most probable).
 */
followed_logprob: number, 
/**
 * How many tokens are more probable than the followed one.
 */
followed_rank: number, };

export type LensReport = { 
/**
 * Token ids of the prompt.
 */
ids: Array<number>, 
/**
 * `[layer][pos]`.
 */
cells: Array<Array<LensCell>>, 
/**
 * Text of each cell's most probable token, `[layer][pos]`.
 */
texts: Array<Array<string>>, 
/**
 * What produced the numbers.
 */
provenance: Provenance, };

export type OvRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * Edits in force.
 */
interventions: Array<Intervention>, 
/**
 * The head.
 */
head: HeadId, 
/**
 * The position that it attends to.
 */
source_pos: number, 
/**
 * Tokens each way.
 */
top: number, } & ({ "text": string } | { "ids": Array<number> });

export type OvFindings = { 
/**
 * Tokens that it raises most, with the change of their logits, the largest first.
 */
raised: Array<[number, number]>, 
/**
 * Tokens that it lowers most, the most lowered first.
 */
lowered: Array<[number, number]>, 
/**
 * The change of the source token's own logit.
 */
own: number, 
/**
 * How many tokens are raised more than the source token.
 */
own_rank: number, };

export type OvReport = { 
/**
 * The head.
 */
head: HeadId, 
/**
 * The position that it attends to.
 */
source_pos: number, 
/**
 * Tokens raised most.
 */
raised: Array<TokenDirect>, 
/**
 * Tokens lowered most.
 */
lowered: Array<TokenDirect>, 
/**
 * The source token itself.
 */
own: TokenDirect, 
/**
 * How many tokens are raised more than the source token.
 */
own_rank: number, 
/**
 * What produced the numbers.
 */
provenance: Provenance, };

export type Direction = "denoise" | "noise";

export type PatchFindings = { 
/**
 * Metric of the clean run.
 */
clean: number, 
/**
 * Metric of the corrupted run.
 */
corrupted: number, 
/**
 * The clean prompt's answer.
 */
token: number, 
/**
 * The corrupted prompt's answer.
 */
versus: number, 
/**
 * The first position at which the prompts differ.
 */
first_difference: number, 
/**
 * Residual stream entering each layer, `[layer][pos]`.
 */
resid_pre: Array<Array<number>>, 
/**
 * Attention's output, `[layer][pos]`.
 */
attn_out: Array<Array<number>>, 
/**
 * The MLP's output, `[layer][pos]`; empty without MLPs.
 */
mlp_out: Array<Array<number>>, 
/**
 * Each head's `z` at every position, `[layer][head]`.
 */
heads: Array<Array<number>>, };

export type PatchRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * The corrupted prompt, of as many tokens.
 */
corrupted: Prompt, 
/**
 * Which run is put into which.
 */
direction: Direction, 
/**
 * `logit_diff`, `logit` or `logprob`.
 */
metric: Metric, 
/**
 * The clean prompt's answer; its most probable next token when absent.
 */
token: number | null, 
/**
 * The corrupted prompt's answer; its most probable other next token when absent.
 */
versus: number | null, } & ({ "text": string } | { "ids": Array<number> });

export type PatchReport = { 
/**
 * Tokens of the clean prompt.
 */
tokens: Array<string>, 
/**
 * Tokens of the corrupted prompt.
 */
corrupted_tokens: Array<string>, 
/**
 * The clean prompt's answer, as text.
 */
token_text: string, 
/**
 * The corrupted prompt's answer, as text.
 */
versus_text: string, 
/**
 * What produced the numbers.
 */
provenance: Provenance, 
/**
 * The request.
 */
request: PatchRequest, 
/**
 * Metric of the clean run.
 */
clean: number, 
/**
 * Metric of the corrupted run.
 */
corrupted: number, 
/**
 * The clean prompt's answer.
 */
token: number, 
/**
 * The corrupted prompt's answer.
 */
versus: number, 
/**
 * The first position at which the prompts differ.
 */
first_difference: number, 
/**
 * Residual stream entering each layer, `[layer][pos]`.
 */
resid_pre: Array<Array<number>>, 
/**
 * Attention's output, `[layer][pos]`.
 */
attn_out: Array<Array<number>>, 
/**
 * The MLP's output, `[layer][pos]`; empty without MLPs.
 */
mlp_out: Array<Array<number>>, 
/**
 * Each head's `z` at every position, `[layer][head]`.
 */
heads: Array<Array<number>>, };

export type ControlsSpec = { 
/**
 * The edits; their heads are the set.
 */
interventions: Array<Intervention>, 
/**
 * Random sets.
 */
n_draws: number, 
/**
 * Seed of the draws.
 */
seed: number, 
/**
 * Which number.
 */
metric: Metric, 
/**
 * The token of `logprob`, `logit` and `logit_diff`; the clean run's most probable one when absent.
 */
token: number | null, 
/**
 * The other token of `logit_diff`; the clean run's most probable other one when absent.
 */
versus: number | null, 
/**
 * Where: for `loss` the positions of the tokens to be foretold (all but the first when absent), for the others the
 * positions whose next token is looked at (the last when absent).
 */
positions: Array<number> | null, };

export type ControlsFindings = { 
/**
 * The metric without an edit.
 */
clean: number, 
/**
 * Edited minus clean with the set.
 */
effect: number, 
/**
 * The same with each random set.
 */
random_effects: Array<number>, 
/**
 * Their mean.
 */
random_mean: number, 
/**
 * Their standard deviation (n - 1).
 */
random_sd: number, 
/**
 * The sets.
 */
draws: Array<Array<HeadId>>, 
/**
 * Heads that they were drawn from.
 */
n_others: number, };

export type ControlsRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, } & ({ "text": string } | { "ids": Array<number> }) & { 
/**
 * The edits; their heads are the set.
 */
interventions: Array<Intervention>, 
/**
 * Random sets.
 */
n_draws: number, 
/**
 * Seed of the draws.
 */
seed: number, 
/**
 * Which number.
 */
metric: Metric, 
/**
 * The token of `logprob`, `logit` and `logit_diff`; the clean run's most probable one when absent.
 */
token: number | null, 
/**
 * The other token of `logit_diff`; the clean run's most probable other one when absent.
 */
versus: number | null, 
/**
 * Where: for `loss` the positions of the tokens to be foretold (all but the first when absent), for the others the
 * positions whose next token is looked at (the last when absent).
 */
positions: Array<number> | null, };

export type ControlsReport = { 
/**
 * What they measure.
 */
metric: MetricSpec, 
/**
 * What produced the numbers.
 */
provenance: Provenance, 
/**
 * The metric without an edit.
 */
clean: number, 
/**
 * Edited minus clean with the set.
 */
effect: number, 
/**
 * The same with each random set.
 */
random_effects: Array<number>, 
/**
 * Their mean.
 */
random_mean: number, 
/**
 * Their standard deviation (n - 1).
 */
random_sd: number, 
/**
 * The sets.
 */
draws: Array<Array<HeadId>>, 
/**
 * Heads that they were drawn from.
 */
n_others: number, };

export type GenerateRequest = { 
/**
 * BOS policy; applies to text only.
 */
bos: BosPolicy, 
/**
 * Edits; those of every position go on in the continuation.
 */
interventions: Array<Intervention>, 
/**
 * Tokens at most.
 */
max_new_tokens: number, 
/**
 * Softmax temperature of the draws; 0 takes the most probable token each time.
 */
temperature: number, 
/**
 * Seed of the draws.
 */
seed: number, 
/**
 * Ids after which nothing follows.
 */
stop_ids: Array<number>, } & ({ "text": string } | { "ids": Array<number> });

export type GenerateReport = { 
/**
 * Token ids of the prompt.
 */
prompt_ids: Array<number>, 
/**
 * Generated ids.
 */
ids: Array<number>, 
/**
 * Decoded text of each.
 */
tokens: Array<string>, 
/**
 * Their text as a whole.
 */
text: string, 
/**
 * What produced them.
 */
provenance: Provenance, };

export type PrefillSpeed = { 
/**
 * Prompt length.
 */
n_tokens: number, 
/**
 * Median over the runs, tokens a second.
 */
tokens_per_s: number, 
/**
 * Every run, milliseconds.
 */
runs_ms: Array<number>, };

export type KernelSpeed = { 
/**
 * In registers alone, with the same instructions: the most that is possible.
 */
peak_gmacs: number, 
/**
 * Of 512 rows with a weight matrix of the model.
 */
matmul_gmacs: number, 
/**
 * The second as a part of the first.
 */
matmul_of_peak: number, };

export type LoadTimes = { 
/**
 * Its bytes from the network or the cache, their checksum included.
 */
read_ms: number, 
/**
 * Header and tokenizer.
 */
parse_ms: number, 
/**
 * Weights into the engine's layout.
 */
pack_ms: number, 
/**
 * Self-tests, and the measurements that choose an engine, unless they were kept from before.
 */
choose_ms: number, };

export type BenchReport = { 
/**
 * Engine, precision and target, such as `cpu-f32 wasm32 (relaxed SIMD)`.
 */
engine: string, 
/**
 * Model's name.
 */
model: string, 
/**
 * One entry a length, in exact f32.
 */
prefill: Array<PrefillSpeed>, 
/**
 * The same in `fast` precision; null where that is no other.
 */
prefill_fast: Array<PrefillSpeed> | null, 
/**
 * How long the model took to load; null where that was not timed.
 */
loading: LoadTimes | null, 
/**
 * How fast products are, and could be; null on a graphics device.
 */
kernel: KernelSpeed | null, 
/**
 * The most memory that the engine has held at a time, bytes; null where that is not known.
 */
memory_bytes: number | null, };

export type ModelFormat = "gguf" | "folder";

export type ManifestModel = { 
/**
 * Name for people.
 */
title: string, 
/**
 * One sentence.
 */
description: string, 
/**
 * Whether it comes with the page.
 */
bundled: boolean, 
/**
 * Licence.
 */
licence: string, 
/**
 * Where it comes from, for people.
 */
homepage: string, 
/**
 * The manifest's id, or the name of a local file.
 */
id: string, 
/**
 * How to read it.
 */
format: ModelFormat, 
/**
 * sha256 of the weights, hex; checked when present.
 */
sha256: string | null, 
/**
 * Size of the weights in bytes, when known.
 */
size_bytes: number | null, 
/**
 * Where to look, in order; the first that answers with the right bytes serves.
 */
urls: Array<string>, 
/**
 * Logits to hold an engine against, of models that the page knows.
 */
golden: Golden | null, };

export type ErrorReport = { 
/**
 * Stable name, such as `prompt_too_long`, `cancelled`, `not_a_model`, `checksum`, `crashed`.
 */
code: string, 
/**
 * A sentence for the user that says what to do.
 */
message: string, 
/**
 * Whether trying again, or something else, can succeed without a reload.
 */
recoverable: boolean, 
/**
 * Operands and causes, for a bug report.
 */
detail: string | null, };

export type EditWhere = "everywhere" | "not_first" | "last";

export type PlacedEdit = { 
/**
 * The edit; its own positions give way to `at`, unless that is everywhere.
 */
edit: Intervention, 
/**
 * Where.
 */
at?: EditWhere, };

export type HeadSet = { 
/**
 * The name.
 */
name: string, 
/**
 * The heads.
 */
heads: Array<HeadId>, };

export type LabSettings = { 
/**
 * What a sweep does to each head.
 */
sweep_edit: Edit, 
/**
 * Where it does so.
 */
sweep_where: EditWhere, 
/**
 * In what it is measured.
 */
metric: Metric, 
/**
 * Whether a loss is that of repeated tokens alone.
 */
is_repeated_only: boolean, 
/**
 * Whether attribution is of the difference of the two compared tokens.
 */
is_difference: boolean, 
/**
 * The corrupted prompt of patching.
 */
corrupted: string, 
/**
 * Which run is put into which.
 */
direction: Direction, 
/**
 * Softmax temperature of continuations; 0 is greedy.
 */
temperature: number, 
/**
 * Seed of continuations and of random heads.
 */
seed: number, };

export type StimulusChoice = "generated" | "prompt";

export type Candidates = "own" | "vocabulary";

export type CustomPattern = { 
/**
 * Offsets as typed, such as `-1, -2`.
 */
offsets_text: string, 
/**
 * Named targets, in the order of [`AttentionTarget::ALL`].
 */
targets: Array<AttentionTarget>, 
/**
 * Painted cells (query, key) of the prompt.
 */
cells: Array<[number, number]>, 
/**
 * The prompt on which they were painted.
 */
painted_ids: Array<number>, };

export type RetrievalSettings = { 
/**
 * Whether the text below takes the place of the generated ones.
 */
is_own: boolean, 
/**
 * A text.
 */
text: string, 
/**
 * The part of it that answers.
 */
needle: string, 
/**
 * What is asked behind it, up to where the answer begins.
 */
question: string, 
/**
 * Whether the strongest heads are switched off too.
 */
is_causal: boolean, };

export type Settings = { 
/**
 * What attention is read on.
 */
stimulus: StimulusChoice, 
/**
 * The pattern of the custom detector.
 */
custom: CustomPattern, 
/**
 * What the retrieval detector hides and asks.
 */
retrieval: RetrievalSettings, 
/**
 * What competes with the next item of a sequence, or with the copied token.
 */
candidates: Candidates, 
/**
 * Whether the next item may be among the five largest, rather than the largest.
 */
is_in_top_five: boolean, };

export type Part = "prompt" | "tokens" | "output" | "ablation" | "map" | "pattern" | "inspector" | "plots" | "lesson";

export type BackendChoice = "auto" | "cpu" | "webgpu";

export type LinkedModel = { 
/**
 * The manifest's id, or a file's name.
 */
id: string, 
/**
 * sha256 of the weights, hex, of a model that is in no manifest; the manifest pins the others.
 */
sha256: string | null, 
/**
 * Where the file is, of a model that is in no manifest; none of a local file.
 */
url: string | null, 
/**
 * How that file is read.
 */
format: ModelFormat, };

export type LinkedScores = { 
/**
 * The file's name.
 */
file: string, 
/**
 * The metric's name.
 */
metric: string, 
/**
 * Whether the numbers are effects, which are ranked by size.
 */
is_effect?: boolean, 
/**
 * sha256 of the weights that it was measured on, where the file says so.
 */
model_sha256?: string | null, 
/**
 * The numbers; none where the link would have become too long with them.
 */
rounded?: RoundedScores | null, };

export type RoundedScores = { 
/**
 * Size of the largest number.
 */
most: number, 
/**
 * `[layer][head]`, thousandths of `most`, -1000 to 1000.
 */
thousandths: Array<Array<number>>, };

export type Numbers = { 
/**
 * The first digits of the weights' sha256.
 */
model_sha256: string, 
/**
 * The first digits of the vocabulary's sha256.
 */
tokenizer_sha256: string, 
/**
 * Version of the lens' detector.
 */
detector_version?: number | null, 
/**
 * The most probable next tokens of the (edited) run: id, text, log-probability in nats.
 */
top: Array<[number, string, number]>, 
/**
 * KL(clean ‖ edited) at the last position, nats, where there were edits.
 */
kl_nats?: number | null, 
/**
 * The lens' number for the held head.
 */
score?: number | null, };

export type AnswerKind = "text" | "head" | "choice";

export type Question = { 
/**
 * The question.
 */
ask: string, 
/**
 * How it is answered.
 */
kind: AnswerKind, 
/**
 * Answers to choose from, of a choice.
 */
choices?: Array<string>, };

export type Lock = "model" | "prompt";

export type Lesson = { 
/**
 * Its title.
 */
title: string, 
/**
 * What is to be done, in paragraphs of plain text.
 */
text: string, 
/**
 * What is asked.
 */
questions: Array<Question>, 
/**
 * What students cannot change.
 */
lock: Array<Lock>, };

export type Answered = { 
/**
 * The question.
 */
ask: string, 
/**
 * How it is answered.
 */
kind: AnswerKind, 
/**
 * The answer.
 */
answer: string, };

export type AnswerSheet = { 
/**
 * The assignment's title.
 */
title: string, 
/**
 * Every question with its answer, empty where there is none.
 */
answers: Array<Answered>, 
/**
 * Address of the view when the answers were written out.
 */
link: string, 
/**
 * When that was, ISO 8601.
 */
time: string, 
/**
 * The model's id.
 */
model: string, 
/**
 * sha256 of its weights.
 */
model_sha256: string, 
/**
 * Version of the page.
 */
build: string, };

export type Link = { 
/**
 * The model.
 */
model: LinkedModel, 
/**
 * The prompt.
 */
prompt: string, 
/**
 * BOS policy.
 */
bos: BosPolicy, 
/**
 * What colours the head map, such as `detector:induction`.
 */
lens: string, 
/**
 * The scores of another program that colour it, under the lens `imported:0`.
 */
imported: LinkedScores | null, 
/**
 * The head held.
 */
head: HeadId | null, 
/**
 * The token held in the inspector.
 */
token: number | null, 
/**
 * Edits in force, in order.
 */
edits: Array<PlacedEdit>, 
/**
 * Named sets of heads.
 */
sets: Array<HeadSet>, 
/**
 * Two texts whose first tokens are compared.
 */
compare: [string, string], 
/**
 * What is asked of experiments.
 */
lab: LabSettings, 
/**
 * What is asked of detectors.
 */
detectors: Settings, 
/**
 * Parts of the page that are not shown.
 */
hide: Array<Part>, 
/**
 * An assignment.
 */
lesson: Lesson | null, 
/**
 * Which engine is wished for.
 */
backend: BackendChoice, 
/**
 * What whoever made the link saw.
 */
numbers: Numbers | null, };

/** A request as it is written: the prompt is needed, everything else has a default. */
export type Args<T, Needed extends PropertyKey = "text" | "ids"> = T extends unknown
  ? Partial<T> & Pick<T, Extract<Needed, keyof T>>
  : never;

/** A view: what differs from the default. `headlight.state()` gives it, links hold it. */
export type State = Partial<Omit<Link, "model" | "lab" | "detectors" | "edits" | "lesson">> & {
  edits?: Array<Partial<PlacedEdit> & Pick<PlacedEdit, "edit">>;
  lesson?: (Partial<Omit<Lesson, "questions">> & { questions?: Array<Partial<Question> & Pick<Question, "ask">> }) | null;
  model?: Partial<LinkedModel>;
  lab?: Partial<LabSettings>;
  detectors?: Partial<Settings>;
};

/** What promises are rejected with. */
export interface HeadlightError extends Error {
  code: string;
  recoverable: boolean;
  detail: string | null;
}

/** Methods of window.headlight on the page; of a <headlight-view>, and of an embed by postMessage. */
export interface HeadlightMethods {
  models(): Promise<Array<ManifestModel>>;
  load(args: { model: string; backend?: BackendChoice }): Promise<ModelInfo>;
  tokenize(text: string, options?: { bos?: BosPolicy }): Promise<TokensReport>;
  run(args: Args<RunRequest>): Promise<RunReport>;
  patterns(args: Args<RunRequest> & { head: HeadId }): Promise<PatternReport>;
  /** Many draws, and long sweeps, are shared by `n_workers` workers on the CPU; unless given, by as many as was chosen on the page, or
   * as the machine bears, where that is worth it. The numbers are the same, bit for bit. */
  detect(args: Args<DetectRequest, "detector"> & { n_workers?: number }): Promise<DetectReport>;
  detectors(): Promise<Array<Doc>>;
  sweep(args: Args<SweepRequest> & { n_workers?: number }): Promise<SweepReport>;
  controls(args: Args<ControlsRequest, "text" | "ids" | "interventions">): Promise<ControlsReport>;
  patch(args: Args<PatchRequest>): Promise<PatchReport>;
  dla(args: Args<DlaRequest>): Promise<DlaReport>;
  lens(args: Args<LensRequest>): Promise<LensReport>;
  ov(args: Args<OvRequest, "text" | "ids" | "head" | "source_pos">): Promise<OvReport>;
  generate(args: Args<GenerateRequest>): Promise<GenerateReport>;
  /** Python that makes a run again in another library. */
  script(args: Args<ScriptRequest, "library">): Promise<string>;
  bench(args?: { prefill?: Array<number>; repeats?: number }): Promise<BenchReport>;
  /** Stops the view and the load that are under way. */
  cancel(): Promise<null>;
  /** The view on the page. */
  state(): Promise<State>;
  /** Shows a view; resolves to what is then shown. Fields left out are at their defaults. */
  setState(state: State): Promise<State>;
  /** The address of the view, with the numbers that it shows now. */
  link(): Promise<string>;
}

export interface Events {
  /** The view was changed. */
  state: State;
  /** A prompt was run, edits in force. */
  view: RunReport;
  /** Something went wrong. */
  error: ErrorReport;
}

/** window.headlight, on the page itself. */
export interface Headlight extends HeadlightMethods {
  version: string;
  /** Resolves when a model is loaded. */
  ready: Promise<ModelInfo>;
  /** Listens; returns what ends it. */
  on<E extends keyof Events>(event: E, listener: (value: Events[E]) => void): () => void;
}

/** The element of headlight-view.js. */
export interface HeadlightView extends HTMLElement, HeadlightMethods {
  /** Loads the frame now, visible or not, and begins to compute. */
  start(): Promise<null>;
  /** Resolves when a model is loaded. */
  ready(): Promise<ModelInfo>;
}

declare global {
  interface Window {
    headlight: Headlight;
  }
  interface HTMLElementTagNameMap {
    "headlight-view": HeadlightView;
  }
  interface HTMLElementEventMap {
    "headlight-ready": CustomEvent<ModelInfo>;
    "headlight-state": CustomEvent<State>;
    "headlight-view": CustomEvent<RunReport>;
    "headlight-error": CustomEvent<ErrorReport>;
  }
}
