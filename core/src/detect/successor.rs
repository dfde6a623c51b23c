//! Successor heads: Monday writes Tuesday, off the weights alone.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::doc::{Doc, Threshold};
use super::ov::{OvShape, candidates_seen, ov_logits, unembed_rows};
use super::vocabulary::{TopOfVocabulary, keep_largest, n_chunks};
use super::{Ask, DetectError, Detector, Findings, Ground, HeadTable, Work};
use crate::backend::{Backend, DeviceError};
use crate::hooks::check_vocabulary;
use crate::ids::{HeadId, TokenId};
use crate::model::ModelConfig;
use crate::tensor::HostTensor;
use crate::tokenizer::Tokenizer;

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "successor",
        version: 1,
        title: "Successor",
        looks_for: "Heads that, attending to an item of an ordinal sequence, raise the next item: Monday to Tuesday, 3 to 4, \
                    c to d.",
        why_it_matters: "One head doing this for days, numbers and letters alike shows an abstract notion of order. Found in \
                         models from 31 million to 12 billion parameters, and not in every one.",
        score: "For each pair (s, next s) of a class: 1 if, of the class' single-token members, next s has the largest logit of \
                W_U LN(W_V W_O LN(e(s))), with e(s) = MLP0(LN(W_E s)). The score is the mean over all pairs of all classes. 0 \
                to 1. Parameters: variant of e(s) (mlp0, with_residual, block0, embedding), among (class, or vocabulary: every \
                token competes, which is stricter and hundreds of times the work), top_k (next s may be among the k largest, \
                default 1, at most 100), cyclic (Sunday to Monday counts, default true), classes of your own ([{\"name\", \
                \"items\", \"cyclic\"}]).",
        stimulus: "Numbers 0 to 200, number words, ordinals, days, months (also short), letters in both cases, Roman numerals, \
                   each with and without a leading space; members that are not a single token are left out, and coverage says \
                   which.",
        source: "Gould et al. 2023, “Successor Heads: Recurring, Interpretable Attention Heads In The Wild”",
        known_confusions: "A head that copies scores 0, one that lowers what it sees can score by chance: copy and predecessor \
                           rates stand beside the score. The pooled score follows the largest classes; the macro average does \
                           not. May, second, A and I mean other things too. Winning within the class hides a logit that is \
                           low in the whole vocabulary; the line of 0.5 is drawn for the class and the largest logit alone.",
        threshold: Some(Threshold { value: 0.5, source: "Gould et al. 2023" }),
        weights_only: true,
    },
    plan,
};

/// A class of METHODS: items in order, without the leading space.
struct OrdinalClass {
    name: &'static str,
    items: &'static str,
    cyclic: bool,
}

const CLASSES: [OrdinalClass; 10] = [
    OrdinalClass {
        name: "number_words",
        items: "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen \
                eighteen nineteen twenty",
        cyclic: false,
    },
    OrdinalClass {
        name: "ordinals",
        items: "first second third fourth fifth sixth seventh eighth ninth tenth",
        cyclic: false,
    },
    OrdinalClass {
        name: "days",
        items: "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        cyclic: true,
    },
    OrdinalClass { name: "days_short", items: "Mon Tue Wed Thu Fri Sat Sun", cyclic: true },
    OrdinalClass {
        name: "months",
        items: "January February March April May June July August September October November December",
        cyclic: true,
    },
    OrdinalClass {
        name: "months_short",
        items: "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
        cyclic: true,
    },
    OrdinalClass {
        name: "letters",
        items: "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
        cyclic: false,
    },
    OrdinalClass {
        name: "letters_lower",
        items: "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        cyclic: false,
    },
    OrdinalClass {
        name: "roman",
        items: "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX",
        cyclic: false,
    },
    OrdinalClass { name: "numbers", items: "", cyclic: false },
];

/// The largest number of the class of numbers.
const MAX_NUMBER: usize = 200;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    variant: Variant,
    among: Among,
    top_k: Option<usize>,
    cyclic: Option<bool>,
    classes: Option<Vec<GivenClass>>,
}

/// A class of the caller's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenClass {
    name: String,
    items: Vec<String>,
    #[serde(default)]
    cyclic: bool,
}

/// What stands for a token in the middle of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Variant {
    /// `MLP0(LN(W_E s))`, as the paper has it.
    #[default]
    Mlp0,
    /// `W_E s + MLP0(LN(W_E s))`.
    WithResidual,
    /// The whole of block 0, every head attending to itself.
    Block0,
    /// `W_E s`.
    Embedding,
}

/// Which tokens compete with the next item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Among {
    /// The single-token members of its class, as the paper has it.
    #[default]
    Class,
    /// Every token.
    Vocabulary,
}

/// Most tokens that count as raised: more would say nothing of order.
const MAX_TOP_K: usize = 100;

/// A class under the model's tokenizer.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    name: String,
    /// Single-token members in order of id: what competes.
    candidates: Vec<TokenId>,
    /// Neighbours that are both single tokens, with the pair's texts.
    pairs: Vec<Pair>,
    n_items: usize,
    dropped: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Pair {
    from: TokenId,
    to: TokenId,
    texts: [String; 2],
}

impl Class {
    fn new(name: String, items: &[String], cyclic: bool, tokenizer: &Tokenizer) -> Result<Self, DetectError> {
        let single_token = |item: &String| -> Result<Option<TokenId>, DetectError> {
            let ids = tokenizer.encode(item)?;
            // A token that does not spell the item stands for something unknown.
            let spells = |id: TokenId| {
                let spelling = tokenizer.spelling(id);
                spelling.text == *item || spelling.piece.replace('▁', " ") == *item
            };
            Ok(if let [id] = ids[..] { Some(id).filter(|&id| spells(id)) } else { None })
        };
        let single = items.iter().map(single_token).collect::<Result<Vec<_>, _>>()?;
        let n_pairs = if cyclic && items.len() > 2 { items.len() } else { items.len().saturating_sub(1) };
        let pairs = (0..n_pairs).filter_map(|index| {
            let next = (index + 1) % items.len();
            let texts = [items[index].clone(), items[next].clone()];
            Some(Pair { from: single[index]?, to: single[next]?, texts })
        });
        let pairs = pairs.collect();
        let mut candidates: Vec<TokenId> = single.iter().copied().flatten().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let dropped = items.iter().zip(&single).filter(|(_, id)| id.is_none()).map(|(item, _)| item.clone());
        Ok(Self { name, candidates, pairs, n_items: items.len(), dropped: dropped.collect() })
    }
}

/// What is scored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SuccessorWork {
    classes: Vec<Class>,
    /// Every candidate of every class, once.
    tokens: Vec<TokenId>,
    variant: Variant,
    among: Among,
    /// Of the candidates, so many with the largest logits count.
    top_k: usize,
    n_layers: usize,
    d_vocab: usize,
}

impl SuccessorWork {
    fn steps_per_layer(&self) -> usize {
        match self.among {
            Among::Class => 1,
            Among::Vocabulary => n_chunks(self.d_vocab),
        }
    }

    fn n_candidates(&self, class: &Class) -> usize {
        match self.among {
            Among::Class => class.candidates.len(),
            Among::Vocabulary => self.d_vocab,
        }
    }

    /// What counts as a hit, where it is not the class' largest logit.
    fn rule(&self) -> String {
        let among = match self.among {
            Among::Class => "its class",
            Among::Vocabulary => "the whole vocabulary",
        };
        match (self.among, self.top_k) {
            (Among::Class, 1) => String::new(),
            (Among::Vocabulary, 1) => format!(", next of {among}"),
            (_, top_k) => format!(", next among the {top_k} largest of {among}"),
        }
    }

    fn row_of(&self, token: TokenId) -> usize {
        self.tokens.binary_search(&token).expect("every candidate is among the tokens")
    }
}

fn plan(ask: &Ask<'_>) -> Result<Work, DetectError> {
    let params: Params = ask.params()?;
    if !ask.config.has_mlp() && matches!(params.variant, Variant::Mlp0 | Variant::WithResidual) {
        return Err(DetectError::ModelLacks(
            "this model has no MLP, and the successor score reads tokens as the first MLP leaves them; give {\"variant\": \
             \"embedding\"} or {\"variant\": \"block0\"} to read them otherwise",
        ));
    }
    let top_k = params.top_k.unwrap_or(1);
    if !(1..=MAX_TOP_K).contains(&top_k) {
        return Err(DetectError::Params(format!("top_k is {top_k}; give 1 to {MAX_TOP_K}")));
    }
    let classes = match &params.classes {
        Some(given) => {
            let classes = given
                .iter()
                .map(|class| Class::new(class.name.clone(), &class.items, class.cyclic, ask.tokenizer));
            classes.collect::<Result<Vec<_>, _>>()?
        }
        None => known_classes(ask.tokenizer, params.cyclic.unwrap_or(true))?,
    };
    if classes.iter().all(|class| class.pairs.is_empty()) {
        return Err(DetectError::NoClasses);
    }
    let mut tokens: Vec<TokenId> =
        classes.iter().flat_map(|class| class.candidates.iter().copied()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    check_vocabulary(&tokens, ask.config)?;
    let (n_layers, d_vocab) = (ask.config.n_layers, ask.config.d_vocab);
    let Params { variant, among, .. } = params;
    Ok(Work::Successor(SuccessorWork { classes, tokens, variant, among, top_k, n_layers, d_vocab }))
}

/// Every class in both spellings, without and with a leading space.
fn known_classes(tokenizer: &Tokenizer, cyclic: bool) -> Result<Vec<Class>, DetectError> {
    let mut classes = Vec::new();
    for class in &CLASSES {
        let items: Vec<String> = match class.name {
            "numbers" => (0..=MAX_NUMBER).map(|number| number.to_string()).collect(),
            _ => class.items.split_whitespace().map(str::to_owned).collect(),
        };
        for (prefix, space) in [("", ""), ("space_", " ")] {
            let items: Vec<String> = items.iter().map(|item| format!("{space}{item}")).collect();
            classes.push(Class::new(
                format!("{prefix}{}", class.name),
                &items,
                class.cyclic && cyclic,
                tokenizer,
            )?);
        }
    }
    Ok(classes)
}

/// Rates of one head over some pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    n: usize,
    n_next: usize,
    n_same: usize,
    n_before: usize,
}

impl Rates {
    fn add(&mut self, other: Self) {
        self.n += other.n;
        self.n_next += other.n_next;
        self.n_same += other.n_same;
        self.n_before += other.n_before;
    }

    fn share(self, count: usize) -> f32 {
        if self.n == 0 { 0.0 } else { count as f32 / self.n as f32 }
    }
}

/// What one head says of one class.
struct ClassResult {
    rates: Rates,
    /// The candidates that count as raised by each pair's first member, most first.
    raised: Vec<Vec<TokenId>>,
}

/// What one head says.
struct HeadResult {
    head: HeadId,
    classes: Vec<ClassResult>,
}

impl HeadResult {
    fn rates(&self) -> Rates {
        let mut rates = Rates::default();
        self.classes.iter().for_each(|class| rates.add(class.rates));
        rates
    }

    fn score(&self) -> f32 {
        let rates = self.rates();
        rates.share(rates.n_next)
    }

    /// Mean of the classes' own scores.
    fn macro_average(&self) -> f32 {
        let scored = self.classes.iter().map(|class| class.rates).filter(|rates| rates.n > 0);
        let scores: Vec<f32> = scored.map(|rates| rates.share(rates.n_next)).collect();
        scores.iter().sum::<f32>() / scores.len().max(1) as f32
    }
}

/// The work under way, a layer or a chunk of its vocabulary a step.
pub(super) struct SuccessorTask<B: Backend> {
    work: SuccessorWork,
    /// `e(s)` of every token and the tokens' unembedding rows, once the first step has made them.
    made: Option<(B::Buffer, B::Buffer)>,
    /// A layer under way, where the whole vocabulary competes.
    layer: Option<TopOfVocabulary<B>>,
    layers: Vec<Vec<HeadResult>>,
}

impl<B: Backend> SuccessorTask<B> {
    pub(super) fn new(work: SuccessorWork) -> Self {
        Self { work, made: None, layer: None, layers: Vec::new() }
    }

    pub(super) fn progress(&self) -> (usize, usize) {
        let of_layer = self.layer.as_ref().map_or(0, TopOfVocabulary::n_done);
        let per_layer = self.work.steps_per_layer();
        (self.layers.len() * per_layer + of_layer, self.work.n_layers * per_layer)
    }

    fn table(&self, number: impl Fn(&HeadResult) -> f32) -> HeadTable {
        self.layers.iter().map(|heads| heads.iter().map(&number).collect()).collect()
    }

    pub(super) fn partial(&self) -> HeadTable {
        self.table(HeadResult::score)
    }

    pub(super) async fn step(&mut self, ground: &Ground<'_, B>) -> Result<bool, DeviceError> {
        let layer = self.layers.len();
        if layer < self.work.n_layers {
            let made = match self.made.take() {
                Some(made) => made,
                None => {
                    let as_read = tokens_as_read(ground, &self.work).await?;
                    (as_read, unembed_rows(ground, &self.work.tokens).await?)
                }
            };
            match self.work.among {
                Among::Class => self.layers.push(layer_results(ground, &self.work, layer, &made).await?),
                Among::Vocabulary => {
                    let mut under_way = match self.layer.take() {
                        Some(under_way) => under_way,
                        None => {
                            let values = values_of(ground, layer, &made.0).await?;
                            TopOfVocabulary::new(ground, layer, &values, self.work.top_k).await?
                        }
                    };
                    match under_way.step(ground).await? {
                        true => self.layers.push(results_of(&self.work, layer, under_way.finish())),
                        false => self.layer = Some(under_way),
                    }
                }
            }
            self.made = Some(made);
        }
        Ok(self.layers.len() == self.work.n_layers)
    }

    pub(super) fn finish(self, tokenizer: &Tokenizer) -> Findings {
        let scored = |class: &&Class| !class.pairs.is_empty();
        let n: usize = self.work.classes.iter().map(|class| class.pairs.len()).sum();
        // Chance: a guess among the candidates, pooled like the score.
        let chance: f64 = self
            .work
            .classes
            .iter()
            .filter(scored)
            .map(|class| {
                let (n_candidates, n_pairs) = (self.work.n_candidates(class), class.pairs.len() as f64);
                n_pairs * self.work.top_k.min(n_candidates) as f64 / n_candidates as f64
            })
            .sum::<f64>()
            / n as f64;
        let coverage: Vec<_> = self.work.classes.iter().map(|class| json!({
            "class": class.name, "n_items": class.n_items, "n_single": class.n_items - class.dropped.len(),
            "n_pairs": class.pairs.len(), "dropped": class.dropped,
        })).collect();
        let best = self.layers.iter().flatten().max_by(|a, b| {
            // The first of equals: `max_by` would take the last.
            a.score().total_cmp(&b.score()).then(b.head.cmp(&a.head))
        });
        let n_covered = self.work.classes.iter().filter(scored).count();
        Findings {
            stimulus: format!(
                "{n} pairs of {n_covered} classes whose members are single tokens, e(s) = {}{}",
                json!(self.work.variant).as_str().unwrap_or_default(),
                self.work.rule()
            ),
            n,
            evidence: json!({
                "variant": self.work.variant,
                "among": self.work.among,
                "top_k": self.work.top_k,
                "chance": chance,
                "coverage": coverage,
                "macro_average": self.table(HeadResult::macro_average),
                "copy_rate": self.table(|head| head.rates().share(head.rates().n_same)),
                "predecessor_rate": self.table(|head| head.rates().share(head.rates().n_before)),
                "best": best.map(|best| evidence_of(best, &self.work, tokenizer)),
            }),
            scores: self.table(HeadResult::score),
            spread: None,
        }
    }
}

/// A head's table: each class with its rates, each item with what won.
fn evidence_of(result: &HeadResult, work: &SuccessorWork, tokenizer: &Tokenizer) -> serde_json::Value {
    let classes = work.classes.iter().zip(&result.classes).filter(|(class, _)| !class.pairs.is_empty());
    let classes: Vec<_> = classes
        .map(|(class, found)| {
            let text_of = |id: TokenId| -> String {
                let pairs = class.pairs.iter();
                let mut known =
                    pairs.flat_map(|pair| [(pair.from, &pair.texts[0]), (pair.to, &pair.texts[1])]);
                let of_class = known.find(|(known, _)| *known == id).map(|(_, text)| text.clone());
                of_class.unwrap_or_else(|| tokenizer.spelling(id).text)
            };
            let rows: Vec<_> = class.pairs.iter().zip(&found.raised).map(|(pair, raised)| json!({
                "from": pair.texts[0], "wanted": pair.texts[1], "argmax": text_of(raised[0]), "argmax_id": raised[0],
                "hit": raised.contains(&pair.to),
            })).collect();
            let rates = found.rates;
            json!({
                "class": class.name, "n": rates.n, "score": rates.share(rates.n_next),
                "copy_rate": rates.share(rates.n_same), "predecessor_rate": rates.share(rates.n_before), "rows": rows,
            })
        })
        .collect();
    json!({ "head": result.head, "score": result.score(), "classes": classes })
}

/// `e(s)` of every token, `[n_tokens, d_model]`.
async fn tokens_as_read<B: Backend>(
    ground: &Ground<'_, B>,
    work: &SuccessorWork,
) -> Result<B::Buffer, DeviceError> {
    let (backend, model) = (ground.backend, ground.model);
    let (eps, block) = (model.config.rms_eps, &model.blocks[0]);
    let embed = backend.gather_rows(&model.w_e, &work.tokens);
    let mlp_out = |x: &B::Buffer| {
        let mlp = block.mlp.as_ref()?;
        let x = backend.rms_norm(x, &mlp.norm, eps);
        let (gate, linear) = (backend.matmul(&x, &mlp.w_gate), backend.matmul(&x, &mlp.w_in));
        Some(backend.matmul(&backend.swiglu(&gate, &linear), &mlp.w_out))
    };
    // A model without MLPs passes on what it has.
    let with_mlp = |x: B::Buffer| match mlp_out(&x) {
        Some(mlp_out) => backend.add(&x, &mlp_out),
        None => x,
    };
    Ok(match work.variant {
        Variant::Embedding => embed,
        Variant::Mlp0 => mlp_out(&embed).expect("planning refuses a model without MLPs"),
        Variant::WithResidual => with_mlp(embed),
        Variant::Block0 => {
            let values = backend.matmul(&backend.rms_norm(&embed, &block.attn_norm, eps), &block.w_v);
            let z = each_head_its_value(&backend.download_one(values).await?, &model.config);
            let shape = vec![work.tokens.len(), model.config.n_heads * model.config.d_head];
            let attn_out = backend.matmul(&backend.vector(&HostTensor::new(shape, z)), &block.w_o);
            with_mlp(backend.add(&embed, &attn_out))
        }
    })
}

/// The z of heads that each attend to their own position alone.
fn each_head_its_value(values: &[f32], config: &ModelConfig) -> Vec<f32> {
    let rows = values.chunks_exact(config.n_kv_heads * config.d_head);
    rows.flat_map(|row| {
        (0..config.n_heads).flat_map(move |head| {
            let first = head / config.heads_per_kv() * config.d_head;
            row[first..first + config.d_head].iter().copied()
        })
    })
    .collect()
}

/// The tokens' values in a layer, `[n_tokens, n_kv_heads * d_head]`.
async fn values_of<B: Backend>(
    ground: &Ground<'_, B>,
    layer: usize,
    as_read: &B::Buffer,
) -> Result<Vec<f32>, DeviceError> {
    let (backend, model) = (ground.backend, ground.model);
    let block = &model.blocks[layer];
    let y = backend.rms_norm(as_read, &block.attn_norm, model.config.rms_eps);
    backend.download_one(backend.matmul(&y, &block.w_v)).await
}

async fn layer_results<B: Backend>(
    ground: &Ground<'_, B>,
    work: &SuccessorWork,
    layer: usize,
    (as_read, unembed): &(B::Buffer, B::Buffer),
) -> Result<Vec<HeadResult>, DeviceError> {
    let config = &ground.model.config;
    let values = values_of(ground, layer, as_read).await?;
    let seen = candidates_seen(ground, layer, unembed).await?;
    let shape = OvShape { n_heads: config.n_heads, n_kv_heads: config.n_kv_heads, d_head: config.d_head };
    Ok((0..config.n_heads)
        .map(|head| {
            let logits = ov_logits(&values, &seen, head, shape);
            let classes = work.classes.iter().map(|class| {
                let candidates: Vec<(TokenId, usize)> =
                    class.candidates.iter().map(|&id| (id, work.row_of(id))).collect();
                class_result(class, |from| {
                    let row = &logits[work.row_of(from)];
                    let mut top = Vec::new();
                    let of_class = candidates.iter().map(|&(id, column)| (id, row[column]));
                    keep_largest(&mut top, of_class, work.top_k);
                    top.into_iter().map(|(id, _)| id).collect()
                })
            });
            HeadResult { head: HeadId::new(layer, head), classes: classes.collect() }
        })
        .collect())
}

/// A layer's results from what each head raises most of the whole vocabulary, `[head][token]`.
fn results_of(work: &SuccessorWork, layer: usize, tops: Vec<Vec<Vec<TokenId>>>) -> Vec<HeadResult> {
    let heads = tops.into_iter().enumerate().map(|(head, tops)| {
        let classes = work.classes.iter();
        let classes = classes.map(|class| class_result(class, |from| tops[work.row_of(from)].clone()));
        HeadResult { head: HeadId::new(layer, head), classes: classes.collect() }
    });
    heads.collect()
}

/// What counts as raised for each pair of a class; `raised_by` says it of a pair's first member.
fn class_result(class: &Class, raised_by: impl Fn(TokenId) -> Vec<TokenId>) -> ClassResult {
    let mut rates = Rates { n: class.pairs.len(), ..Rates::default() };
    let raised = class.pairs.iter().map(|pair| {
        let raised = raised_by(pair.from);
        rates.n_next += usize::from(raised.contains(&pair.to));
        rates.n_same += usize::from(raised.contains(&pair.from));
        let before = class.pairs.iter().filter(|other| other.to == pair.from).map(|other| other.from);
        rates.n_before += usize::from(before.into_iter().any(|before| raised.contains(&before)));
        raised
    });
    let raised = raised.collect();
    ClassResult { rates, raised }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class() -> Class {
        let pair = |from, to| Pair { from, to, texts: [format!("t{from}"), format!("t{to}")] };
        Class {
            name: "planted".to_owned(),
            candidates: vec![2, 4, 6, 8],
            pairs: vec![pair(2, 6), pair(6, 4), pair(4, 8)],
            n_items: 4,
            dropped: Vec::new(),
        }
    }

    /// Rates of a head that raises one token of each source.
    fn planted(raised: impl Fn(TokenId) -> TokenId) -> Rates {
        class_result(&class(), |from| vec![raised(from)]).rates
    }

    #[test]
    fn a_planted_successor_scores_one_a_copier_and_a_predecessor_nothing() {
        let next =
            |from| [(2, 6), (6, 4), (4, 8)].into_iter().find(|(f, _)| *f == from).map_or(2, |(_, to)| to);
        let before =
            |from| [(2, 6), (6, 4), (4, 8)].into_iter().find(|(_, t)| *t == from).map_or(2, |(f, _)| f);
        let (successor, copier, predecessor) = (planted(next), planted(|from| from), planted(before));
        assert_eq!((successor.n, successor.n_next, successor.n_same, successor.n_before), (3, 3, 0, 0));
        assert_eq!((copier.n_next, copier.n_same), (0, 3));
        // The first item has nothing before it: there the planted head raises the item itself.
        assert_eq!((predecessor.n_next, predecessor.n_before, predecessor.n_same), (0, 2, 1));
    }

    #[test]
    fn of_several_raised_tokens_each_counts() {
        let both = class_result(&class(), |from| vec![from, from + 2]).rates;
        // Of (2, 6), (6, 4) and (4, 8), no next item is 2 larger; 4 and 6 have before them 6 and 2, of which 4 raises 6.
        assert_eq!((both.n, both.n_next, both.n_same, both.n_before), (3, 0, 3, 1));
    }

    #[test]
    fn pooled_and_macro_averages_weigh_differently() {
        let rates =
            |n, n_next| ClassResult { rates: Rates { n, n_next, ..Rates::default() }, raised: Vec::new() };
        let result =
            HeadResult { head: HeadId::new(0, 0), classes: vec![rates(9, 0), rates(1, 1), rates(0, 0)] };
        assert_eq!((result.score(), result.macro_average()), (0.1, 0.5));
    }
}
