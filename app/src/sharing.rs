//! Sweeps and detectors over several workers: how many are worth starting, who does which layers or draws, in which order (a sweep
//! perhaps in `fast` precision first), and how their parts become one report again. Plain data; the workers themselves are
//! `client`'s.

use headlight_core::ablate::sweep::Targets;
use headlight_core::report::{DetectRequest, ModelInfo, SweepReport, SweepRequest};

use crate::protocol::{EngineReport, ErrorReport, Progress};
use crate::view_model::size_text;

/// Models below this size sweep sooner than another worker has loaded one, or than anyone could read numbers in `fast` precision.
pub const MIN_SWEPT_PARAMS: usize = 20_000_000;
/// Edits at so few positions cost little more than one pass.
const MIN_POSITIONS: usize = 16;
/// Fewer draws are read before another worker has loaded its model.
const MIN_DRAWS: usize = 8;
/// The same of retrieval's prompts, which are longer and are answered.
const MIN_PROMPTS: usize = 4;
/// More workers would wait for memory rather than for arithmetic.
const MAX_WORKERS: usize = 4;
/// The part of the machine's memory that further copies of the weights may take.
const MEMORY_SHARE: f64 = 0.25;
/// Memory of a browser that does not tell, GiB.
const UNTOLD_MEMORY_GIB: f64 = 4.0;

/// Most workers that the user may choose.
const MAX_CHOSEN: usize = 16;

/// What the browser says of its machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Processor cores.
    pub n_cores: usize,
    /// Memory, GiB, where it is told (browsers round it, and never say more than 8).
    pub memory_gib: Option<f64>,
}

impl Default for Machine {
    /// One core, and nothing told of memory.
    fn default() -> Self {
        Self { n_cores: 1, memory_gib: None }
    }
}

/// Whether a sweep is so long that more workers, or numbers in `fast` precision before the exact ones, are worth their while.
pub fn is_long(model: &ModelInfo, request: &SweepRequest) -> bool {
    let spec = &request.spec;
    let n_positions = spec.edit_positions.as_ref().map_or(usize::MAX, Vec::len);
    model.n_params >= MIN_SWEPT_PARAMS && spec.targets == Targets::Heads && n_positions >= MIN_POSITIONS
}

/// Workers that a machine bears, the one that is there included, and what keeps them from being more; `weight_bytes` is what another
/// copy of the weights takes.
fn borne(machine: Machine, weight_bytes: u64) -> (usize, String) {
    let memory_gib = machine.memory_gib.unwrap_or(UNTOLD_MEMORY_GIB);
    // A worker that loads a model holds the file's largest tensor as well.
    let copy_bytes = weight_bytes.max(1) as f64 * 4.0 / 3.0;
    let n_copies = (memory_gib * (1u64 << 30) as f64 * MEMORY_SHARE / copy_bytes) as usize;
    let (n_cores, n_fitting) = (machine.n_cores.max(1), 1 + n_copies);
    if n_cores.min(n_fitting) > MAX_WORKERS {
        return (MAX_WORKERS, "more would wait for memory rather than for arithmetic".to_owned());
    }
    if n_fitting < n_cores {
        let of = match machine.memory_gib {
            Some(gib) => format!("the {gib} GB of memory that the browser tells of"),
            None => {
                format!("{UNTOLD_MEMORY_GIB} GB of memory, which is assumed where the browser tells nothing")
            }
        };
        let size = size_text(weight_bytes);
        return (
            n_fitting,
            format!("more copies of the weights, {size} each, would take too large a part of {of}"),
        );
    }
    match n_cores {
        1 => (1, "the browser tells of one core".to_owned()),
        n_cores => (n_cores, format!("one for each of the {n_cores} cores that the browser tells of")),
    }
}

/// Workers that share long work on a model, and why they are so many; `chosen` is the user's choice.
pub fn workers(
    chosen: Option<usize>,
    machine: Machine,
    model: &ModelInfo,
    engine: &EngineReport,
) -> (usize, String) {
    if engine.is_gpu {
        return (1, "WebGPU does it alone, and only the CPU's work is shared".to_owned());
    }
    if model.n_params < MIN_SWEPT_PARAMS {
        return (1, "this model is so small that one is done before another has loaded it".to_owned());
    }
    match chosen {
        Some(n_workers) => {
            let size = size_text(engine.weight_bytes);
            (n_workers, format!("as you chose; each further one holds its own copy of the weights, {size}"))
        }
        None => borne(machine, engine.weight_bytes),
    }
}

/// The numbers of workers to choose from.
pub fn choices(chosen: Option<usize>, machine: Machine) -> impl Iterator<Item = usize> {
    1..=machine.n_cores.max(chosen.unwrap_or(1)).clamp(1, MAX_CHOSEN)
}

/// A choice as it was kept; `None` of anything that cannot be chosen.
pub fn kept_choice(text: &str) -> Option<usize> {
    text.parse().ok().filter(|n_workers| (1..=MAX_CHOSEN).contains(n_workers))
}

/// Workers for a sweep, of those that there may be.
pub fn n_sweepers(n_workers: usize, model: &ModelInfo, request: &SweepRequest) -> usize {
    let n_layers = request.spec.layers.as_ref().map_or(model.n_layers, Vec::len);
    if is_long(model, request) { n_workers.min(n_layers.max(1)) } else { 1 }
}

/// Workers for a detector, of those that there may be.
pub fn n_detectors(n_workers: usize, model: &ModelInfo, request: &DetectRequest) -> usize {
    let n_draws = request.n_draws().filter(|_| model.n_params >= MIN_SWEPT_PARAMS).unwrap_or(0);
    let least = if request.detector == "retrieval" { MIN_PROMPTS } else { MIN_DRAWS };
    n_workers.min(n_draws / least).max(1)
}

/// The detector in parts: as much work for each worker, as far as draws can be told apart. A part of it alone is not divided further.
pub fn draws_of(request: &DetectRequest, n_workers: usize) -> Vec<DetectRequest> {
    // Without a draw the engine says what is wrong with the request.
    let n_draws = request.n_draws().filter(|&n_draws| n_draws > 0 && request.draws.is_none());
    let (Some(n_draws), true) = (n_draws, n_workers > 1) else { return vec![request.clone()] };
    let n_workers = n_workers.min(n_draws);
    let bounds = match request.draw_costs() {
        Some(costs) => even_bounds(&costs, n_workers),
        None => (0..=n_workers).map(|worker| worker * n_draws / n_workers).collect(),
    };
    let part = |bounds: &[usize]| DetectRequest { draws: Some(bounds[0]..bounds[1]), ..request.clone() };
    bounds.windows(2).map(part).collect()
}

/// Where to cut things in a row so that the parts cost about the same; no part is empty where there are enough things.
fn even_bounds(costs: &[f64], n_parts: usize) -> Vec<usize> {
    let all: f64 = costs.iter().sum();
    let (mut bounds, mut sum) = (vec![0], 0.0);
    for (index, cost) in costs.iter().enumerate() {
        let n_cut = bounds.len();
        let is_due = sum + cost / 2.0 >= all * n_cut as f64 / n_parts as f64;
        let is_last_chance = costs.len() - index == n_parts - n_cut;
        if n_cut < n_parts && index > bounds[n_cut - 1] && (is_due || is_last_chance) {
            bounds.push(index);
        }
        sum += cost;
    }
    bounds.push(costs.len());
    bounds
}

/// The sweep in parts. A layer costs what lies above it, so neighbours go to different workers.
pub fn parts(request: &SweepRequest, n_layers: usize, n_workers: usize) -> Vec<SweepRequest> {
    let layers = request.spec.layers.clone().unwrap_or_else(|| (0..n_layers).collect());
    let part = |worker: usize| {
        let mut part = request.clone();
        part.spec.layers = Some(layers.iter().copied().skip(worker).step_by(n_workers).collect());
        part
    };
    (0..n_workers).map(part).collect()
}

/// The same sweep with its layers in the order of their largest effects, as far as these are known.
pub fn largest_first(mut request: SweepRequest, effects: &[Vec<f32>]) -> SweepRequest {
    let mut layers = request.spec.layers.take().unwrap_or_else(|| (0..effects.len()).collect());
    let largest = |layer: &usize| {
        let effects = effects.get(*layer).into_iter().flatten();
        effects.fold(0.0, |largest: f32, effect| largest.max(effect.abs()))
    };
    layers.sort_by(|a, b| largest(b).total_cmp(&largest(a)));
    request.spec.layers = Some(layers);
    request
}

/// Numbers of one part put beside those of others: NaN gives way.
pub fn lay_over(effects: &mut Vec<Vec<f32>>, more: &[Vec<f32>]) {
    if effects.is_empty() {
        *effects = more.to_vec();
        return;
    }
    for (row, more) in effects.iter_mut().zip(more) {
        for (effect, more) in row.iter_mut().zip(more).filter(|(_, more)| !more.is_nan()) {
            *effect = *more;
        }
    }
}

/// One report of its parts' reports.
///
/// # Panics
/// Without a part.
pub fn whole(request: SweepRequest, parts: Vec<SweepReport>) -> SweepReport {
    let mut effects = Vec::new();
    parts.iter().for_each(|part| lay_over(&mut effects, &part.effects));
    let first = parts.into_iter().next().expect("a sweep has a part");
    SweepReport { effects, request, ..first }
}

/// What the page says when a helper could not load the model or was ended by the browser.
pub fn helper_lost(why: ErrorReport) -> ErrorReport {
    let told = "a worker that helped was lost, and its share is computed again without it: that takes longer, the numbers are \
                the same";
    let detail = Some(why.message).into_iter().chain(why.detail).collect::<Vec<_>>().join("; ");
    ErrorReport {
        code: "helper_lost".to_owned(),
        message: told.to_owned(),
        recoverable: true,
        detail: Some(detail),
    }
}

/// How far the parts are together.
#[derive(Clone, Debug, Default)]
pub struct Together(Vec<Option<Progress>>);

impl Together {
    /// Nothing known of any of the parts.
    pub fn new(n_parts: usize) -> Self {
        Self(vec![None; n_parts])
    }

    /// Forgets what a part did: it begins again.
    pub fn restart(&mut self, part: usize) {
        self.0[part] = None;
    }

    /// Takes in what one part says, and gives the sum; `n_all` is the amount of all parts, where it is known before all have begun.
    pub fn take(&mut self, part: usize, progress: Progress, n_all: Option<u64>) -> Progress {
        self.0[part] = Some(progress.clone());
        let known = || self.0.iter().flatten();
        let table = |of: fn(&Progress) -> Option<&Vec<Vec<f32>>>| {
            let mut table = Vec::new();
            known().filter_map(of).for_each(|part| lay_over(&mut table, part));
            Some(table).filter(|table| !table.is_empty())
        };
        Progress {
            done: known().map(|part| part.done).sum(),
            total: n_all.or_else(|| self.0.iter().map(|part| part.as_ref()?.total).sum()),
            elapsed_ms: known().map(|part| part.elapsed_ms).fold(0.0, f64::max),
            scores: table(|part| part.scores.as_ref()),
            preview: table(|part| part.preview.as_ref()),
            ..progress
        }
    }
}

#[cfg(test)]
mod tests {
    use headlight_core::ablate::sweep::SweepSpec;
    use headlight_core::backend::Precision;
    use headlight_core::ids::HeadId;
    use headlight_core::report::{BosPolicy, Prompt};

    use super::*;
    use crate::protocol::Stage;
    use crate::state::tests::info;

    fn request() -> SweepRequest {
        SweepRequest {
            prompt: Prompt::Text("a".to_owned()),
            bos: BosPolicy::Auto,
            precision: Precision::Exact,
            spec: SweepSpec::default(),
        }
    }

    /// As large as SmolLM2.
    fn smollm2() -> ModelInfo {
        ModelInfo { n_params: 135_000_000, n_layers: 30, ..info() }
    }

    #[test]
    fn workers_are_as_many_as_cores_and_memory_allow_and_it_is_said_why() {
        // As its 4-bit weights take.
        let engine = EngineReport { weight_bytes: 112_000_000, ..EngineReport::default() };
        let told = |chosen, n_cores, memory_gib| {
            workers(chosen, Machine { n_cores, memory_gib }, &smollm2(), &engine)
        };
        let check = |n_cores, memory_gib, n_workers, why: &str| {
            let (n, told) = told(None, n_cores, memory_gib);
            assert_eq!(n, n_workers, "{told}");
            assert!(told.contains(why), "{told}");
        };
        check(2, Some(8.0), 2, "each of the 2 cores");
        check(4, Some(8.0), 4, "each of the 4 cores");
        check(64, Some(8.0), 4, "rather than for arithmetic");
        check(8, Some(1.0), 2, "112.0 MB each, would take too large a part of the 1 GB");
        check(8, Some(0.5), 1, "0.5 GB");
        check(8, None, 4, "rather than for arithmetic");
        check(0, None, 1, "one core");
        let heavy = EngineReport { weight_bytes: 1_000_000_000, ..EngineReport::default() };
        let (n, why) = workers(None, Machine { n_cores: 8, memory_gib: None }, &smollm2(), &heavy);
        assert!(n == 1 && why.contains("4 GB of memory, which is assumed"), "{n}: {why}");
        // A choice counts whatever the machine is, but not where nothing is shared.
        let (n, why) = told(Some(3), 2, Some(1.0));
        assert!(n == 3 && why.contains("as you chose") && why.contains("112.0 MB"), "{n}: {why}");
        let gpu = EngineReport { is_gpu: true, ..EngineReport::default() };
        let (n, why) = workers(Some(3), Machine::default(), &smollm2(), &gpu);
        assert!(n == 1 && why.contains("WebGPU"), "{why}");
        let (n, why) = workers(Some(3), Machine::default(), &info(), &engine);
        assert!(n == 1 && why.contains("so small"), "{why}");
    }

    #[test]
    fn one_chooses_among_as_many_workers_as_there_are_cores() {
        let choices =
            |chosen, n_cores| choices(chosen, Machine { n_cores, memory_gib: None }).collect::<Vec<_>>();
        assert_eq!(choices(None, 3), [1, 2, 3]);
        assert_eq!(choices(Some(2), 1), [1, 2], "what was chosen elsewhere");
        assert_eq!((choices(None, 0), choices(None, 64).len()), (vec![1], 16));
        assert_eq!((kept_choice("4"), kept_choice("16")), (Some(4), Some(16)));
        for bad in ["0", "17", "-1", "two", "", "99999999999999999999"] {
            assert_eq!(kept_choice(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_work_that_is_worth_it_is_shared() {
        let n_workers = |request: &SweepRequest| n_sweepers(4, &smollm2(), request);
        assert_eq!(n_workers(&request()), 4);
        assert_eq!(n_sweepers(4, &info(), &request()), 1, "a small model");
        let mut few = request();
        few.spec.layers = Some(vec![3, 4]);
        assert_eq!(n_workers(&few), 2, "two layers");
        let mut last = request();
        last.spec.edit_positions = Some(vec![7]);
        assert_eq!(n_workers(&last), 1, "one position");
        let mut sets = request();
        sets.spec.targets = Targets::Sets(vec![[HeadId::new(0, 1), HeadId::new(3, 2)].into()]);
        assert_eq!(n_workers(&sets), 1, "sets are in no layer");
    }

    #[test]
    fn every_layer_is_in_one_part() {
        let parts = parts(&request(), 7, 3);
        let mut layers: Vec<usize> =
            parts.iter().flat_map(|part| part.spec.layers.clone().unwrap_or_default()).collect();
        assert_eq!(parts[1].spec.layers, Some(vec![1, 4]));
        layers.sort_unstable();
        assert_eq!(layers, (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn every_draw_is_in_one_part_where_there_are_many() {
        let request =
            |params| DetectRequest { detector: "induction".to_owned(), params, ..DetectRequest::default() };
        let many = request(serde_json::json!({"n_draws": 26}));
        let n_workers = |request: &DetectRequest| n_detectors(4, &smollm2(), request);
        assert_eq!((n_workers(&many), n_workers(&request(serde_json::Value::Null))), (3, 1));
        let parts: Vec<_> = draws_of(&many, 3).into_iter().filter_map(|part| part.draws).collect();
        assert_eq!(parts, [0..8, 8..17, 17..26]);
        assert_eq!(draws_of(&many, 1), vec![many.clone()]);
        let part = DetectRequest { draws: Some(0..3), ..many.clone() };
        assert_eq!(draws_of(&part, 3), vec![part.clone()], "a part is not divided further");
        let none = request(serde_json::json!({"n_draws": 0}));
        assert_eq!(draws_of(&none, 3), vec![none.clone()], "nothing to divide");
        let retrieval = DetectRequest {
            detector: "retrieval".to_owned(),
            params: serde_json::Value::Null,
            ..many.clone()
        };
        assert_eq!((n_workers(&retrieval), draws_of(&retrieval, 3).len()), (3, 3), "15 prompts");
        let causal = DetectRequest { params: serde_json::json!({"causal": {}}), ..retrieval };
        assert_eq!(
            (n_workers(&causal), draws_of(&causal, 3).len()),
            (1, 1),
            "goes on with all prompts' heads"
        );
        let weights = DetectRequest { detector: "copying".to_owned(), ..many };
        assert_eq!((n_workers(&weights), draws_of(&weights, 3).len()), (1, 1));
    }

    #[test]
    fn parts_cost_about_the_same() {
        assert_eq!(even_bounds(&[1.0; 6], 3), [0, 2, 4, 6]);
        assert_eq!(even_bounds(&[9.0, 1.0, 1.0, 1.0, 6.0], 2), [0, 1, 5]);
        assert_eq!(even_bounds(&[1.0, 1.0, 1.0, 9.0], 3), [0, 2, 3, 4], "none is empty");
        assert_eq!(even_bounds(&[9.0, 1.0, 1.0], 3), [0, 1, 2, 3]);
        assert_eq!(even_bounds(&[0.0; 3], 2), [0, 1, 3]);
        // Needles at the end are cheap: what comes before them was read with the prompt before.
        let retrieval = DetectRequest { detector: "retrieval".to_owned(), ..DetectRequest::default() };
        let parts: Vec<_> = draws_of(&retrieval, 2).into_iter().filter_map(|part| part.draws).collect();
        assert_eq!(parts, [0..10, 10..15]);
    }

    #[test]
    fn the_layers_with_the_largest_effects_come_first() {
        let effects = [vec![0.1, -0.2], vec![0.0, -3.0], vec![f32::NAN, 0.5], vec![1.0, 0.0]];
        let all = largest_first(request(), &effects);
        assert_eq!(all.spec.layers, Some(vec![1, 3, 2, 0]));
        let mut part = request();
        part.spec.layers = Some(vec![0, 2]);
        assert_eq!(largest_first(part, &effects).spec.layers, Some(vec![2, 0]));
    }

    #[test]
    fn parts_add_up() {
        let progress = |done, scores| Progress {
            stage: Stage::Sweep,
            done,
            total: Some(2),
            elapsed_ms: done as f64,
            scores: Some(scores),
            preview: None,
            text: None,
        };
        let mut together = Together::new(2);
        together.take(0, progress(1, vec![vec![f32::NAN], vec![0.5]]), Some(4));
        let sum = together.take(1, progress(2, vec![vec![0.25], vec![f32::NAN]]), Some(4));
        assert_eq!((sum.done, sum.total, sum.elapsed_ms), (3, Some(4), 2.0));
        assert_eq!(sum.scores, Some(vec![vec![0.25], vec![0.5]]));
        // A part that begins again counts from nothing.
        together.restart(1);
        let sum = together.take(0, progress(1, vec![vec![f32::NAN], vec![0.5]]), Some(4));
        assert_eq!((sum.done, &sum.scores.expect("scores")[1]), (1, &vec![0.5]));
        let told = helper_lost(ErrorReport {
            code: "crashed".to_owned(),
            message: "the engine crashed".to_owned(),
            recoverable: true,
            detail: Some("out of memory".to_owned()),
        });
        assert_eq!(told.detail.as_deref(), Some("the engine crashed; out of memory"));
        assert!(told.recoverable && told.message.contains("the same"), "{told:?}");
    }
}
