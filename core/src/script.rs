//! Python that reproduces a run, clean and with its edits, in another library: exact token ids, the same edits at the same
//! places, and the numbers found here to compare with. The frame of each script is a Python file beside this one; written
//! here are its data and one statement for each edited place.
//!
//! Both libraries run the checkpoint as transformers loads it. TransformerLens takes edits as hooks; nnsight as statements
//! inside a trace, which have to stand in the order of the forward pass.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::hooks::{ActivationDirection, Edit, Intervention, PatternTarget, Prompt, Site, token_of};
use crate::ids::{BlockHook, HeadId, HookPoint, TokenId};
use crate::model::ModelConfig;
use crate::report::{BosPolicy, ModelInfo, RunReport, TokenLogit};

/// A Python library that runs the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Library {
    /// TransformerLens 4.
    TransformerLens,
    /// nnsight 0.8, here or on NDIF.
    Nnsight,
}

impl Library {
    /// Every library.
    pub const ALL: [Self; 2] = [Self::TransformerLens, Self::Nnsight];

    /// As its package is imported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TransformerLens => "transformer_lens",
            Self::Nnsight => "nnsight",
        }
    }

    /// The script around the data and the edits.
    const fn frame(self) -> &'static str {
        match self {
            Self::TransformerLens => include_str!("script/transformer_lens.py"),
            Self::Nnsight => include_str!("script/nnsight.py"),
        }
    }
}

/// `script`: Python that reproduces a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ScriptRequest {
    /// Text or ids.
    #[serde(flatten)]
    pub prompt: Prompt,
    /// BOS policy; applies to text only.
    #[serde(default)]
    pub bos: BosPolicy,
    /// Edits, applied in order.
    #[serde(default)]
    pub interventions: Vec<Intervention>,
    /// For which library.
    pub library: Library,
    /// The model's repository on the Hugging Face hub, where it is known.
    #[serde(default)]
    pub repo: Option<String>,
    /// Address of the folder with the very files that are loaded: config.json, tokenizer.json and model.safetensors.
    #[serde(default)]
    pub files: Option<String>,
    /// Whether the run is on NDIF.
    #[serde(default)]
    pub remote: bool,
}

/// What a script is made of, beyond its request.
#[derive(Clone, Copy)]
pub struct Reproduced<'a> {
    /// The model.
    pub info: &'a ModelInfo,
    /// Its sizes.
    pub config: &'a ModelConfig,
    /// The edits, every prompt in them as token ids.
    pub interventions: &'a [Intervention],
    /// The run without edits.
    pub clean: &'a RunReport,
    /// The run with them; the same without edits.
    pub edited: &'a RunReport,
    /// KL(clean ‖ edited) at the last position, nats.
    pub kl_nats: f32,
}

/// Why there is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A model that transformers has no class for, which a script makes up for where it runs itself.
    #[error(
        "{model} has attention only, which no class of transformers loads by itself, so it cannot run remotely; leave out remote"
    )]
    AttentionOnly {
        /// Its name.
        model: String,
    },
    /// A family whose modules are not known here.
    #[error("models of family \"{0}\" have no Python script yet; there is one for llama")]
    Family(String),
    /// Remote runs need a checkpoint that the other side can load.
    #[error("a remote run needs the model's repository on the Hugging Face hub; name it with repo")]
    NoRepo,
    /// TransformerLens has no remote runs.
    #[error("TransformerLens runs locally; take nnsight for a remote run")]
    LocalOnly,
}

/// Largest allowed difference of logits, log-probabilities and KL: two f32 forward passes of SmolLM2 differ by 2e-4.
pub const TOLERANCE: f32 = 2e-3;

/// The script.
pub fn script(request: &ScriptRequest, of: Reproduced<'_>) -> Result<String, ScriptError> {
    if of.info.family != "llama" {
        return Err(ScriptError::Family(of.info.family.clone()));
    }
    match (request.remote, request.library) {
        (true, Library::TransformerLens) => return Err(ScriptError::LocalOnly),
        (true, Library::Nnsight) if request.repo.is_none() => return Err(ScriptError::NoRepo),
        (true, Library::Nnsight) if !of.config.has_mlp() => {
            return Err(ScriptError::AttentionOnly { model: of.info.name.clone() });
        }
        _ => {}
    }
    let code = Code::of(request.library, of);
    let mut uses = code.uses.clone();
    uses.insert(if of.config.has_mlp() { "with_mlps" } else { "attention_only" });
    if request.files.is_some() && !request.remote {
        uses.insert("fetched");
    }
    let mut script = String::new();
    for (name, text) in sections(request.library.frame()) {
        match name {
            "data" => script.push_str(&data(request, of)),
            "checkpoint" => script.extend(
                sections(include_str!("script/checkpoint.py"))
                    .filter(|(name, _)| name.is_empty() || uses.contains(name))
                    .map(|(_, text)| text),
            ),
            "edits" => script.push_str(&code.edits(of)),
            "check" => script.push_str(include_str!("script/check.py")),
            _ => {}
        }
        if matches!(name, "" | "data" | "checkpoint" | "edits") || uses.contains(name) {
            script.push_str(text);
        }
    }
    Ok(script)
}

/// A frame cut at its lines `#: name`; the text before the first has no name.
fn sections(frame: &str) -> impl Iterator<Item = (&str, &str)> {
    let marked = frame.split("#: ").enumerate();
    marked.map(
        |(index, part)| if index == 0 { ("", part) } else { part.split_once('\n').unwrap_or((part, "")) },
    )
}

/// A string as Python writes it; JSON's spelling is Python's too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", values.join(", "))
}

fn or_none(text: &Option<String>) -> String {
    text.as_deref().map_or_else(|| "None".to_owned(), quoted)
}

/// The script's constants.
fn data(request: &ScriptRequest, of: Reproduced<'_>) -> String {
    let rows = |top: &[TokenLogit]| {
        let row =
            |t: &TokenLogit| format!("    ({}, {}, {}, {}),\n", t.id, quoted(&t.token), t.logit, t.logprob);
        format!("[\n{}]", top.iter().map(row).collect::<String>())
    };
    let remote = match (request.library, request.remote) {
        (Library::TransformerLens, _) => "",
        (Library::Nnsight, false) => "REMOTE = False  # True runs on NDIF\n",
        (Library::Nnsight, true) => "REMOTE = True  # False runs here\n",
    };
    format!(
        "HEADLIGHT = {build}  # its version\n\
         MODEL = {model}\n\
         SHA256 = {sha256}  # of the weights\n\
         REPO = {repo}\n\
         FILES = {files}\n\
         {remote}TOLERANCE = {TOLERANCE}\n\
         N_HEADS, D_HEAD = {n_heads}, {d_head}\n\
         IDS = {ids}\n\
         TOKENS = {tokens}\n\
         # What Headlight found: id, token, logit, log-probability (nats) of the next token.\n\
         EXPECTED_CLEAN = {clean}\n\
         EXPECTED_EDITED = {edited}\n\
         EXPECTED_KL = {kl}  # KL(clean || edited), nats\n",
        build = quoted(&of.clean.provenance.build),
        model = quoted(&of.info.name),
        sha256 = quoted(&of.info.sha256),
        repo = or_none(&request.repo),
        files = or_none(&request.files),
        n_heads = of.config.n_heads,
        d_head = of.config.d_head,
        ids = list(&of.clean.ids),
        tokens = list(of.clean.tokens.iter().map(|token| quoted(token))),
        clean = rows(&of.clean.logits_top),
        edited = rows(&of.edited.logits_top),
        kl = of.kl_nats,
    )
}

/// The edits as statements.
struct Code {
    library: Library,
    /// Matrices of pattern targets.
    targets: BTreeMap<&'static str, &'static str>,
    /// Other runs and what is read of them, before the edited run.
    donors: Vec<String>,
    /// What is done at each place, in the order of the forward pass.
    places: BTreeMap<HookPoint, Vec<String>>,
    /// Sections of the frame that they need.
    uses: BTreeSet<&'static str>,
}

/// The name of a place's tensor in the script.
fn variable(point: HookPoint) -> &'static str {
    match point {
        HookPoint::Block(_, BlockHook::Z) => "z",
        HookPoint::Block(_, BlockHook::AttnScores) => "scores",
        HookPoint::Block(_, BlockHook::Pattern) => "pattern",
        _ => "x",
    }
}

/// nnsight's value of a place, and how it becomes what TransformerLens has there and back.
fn nnsight_place(point: HookPoint) -> (String, &'static str, &'static str) {
    let HookPoint::Block(layer, hook) = point else { unreachable!("edits act within blocks") };
    let attention = "self_attn.source.attention_interface_1.source.nn_functional_softmax_0";
    let (path, split, joined) = match hook {
        BlockHook::ResidPre => ("input".to_owned(), "", ""),
        BlockHook::AttnScores => (format!("{attention}.input"), "", ""),
        BlockHook::Pattern => (format!("{attention}.output"), "", ""),
        BlockHook::Z => {
            ("self_attn.o_proj.input".to_owned(), ".unflatten(-1, (N_HEADS, D_HEAD))", ".flatten(-2)")
        }
        BlockHook::AttnOut => ("self_attn.o_proj.output".to_owned(), "", ""),
        BlockHook::MlpOut => ("mlp.output".to_owned(), "", ""),
        other => unreachable!("no edit acts at {other:?}"),
    };
    (format!("layers[{layer}].{path}"), split, joined)
}

impl Code {
    fn of(library: Library, of: Reproduced<'_>) -> Self {
        let mut code = Self {
            library,
            targets: BTreeMap::new(),
            donors: Vec::new(),
            places: BTreeMap::new(),
            uses: BTreeSet::new(),
        };
        for (index, intervention) in of.interventions.iter().enumerate() {
            code.add(index + 1, intervention, of);
        }
        code
    }

    /// The statements of one intervention; `number` names what it reads of other runs.
    fn add(&mut self, number: usize, intervention: &Intervention, of: Reproduced<'_>) {
        let sites: Vec<Site> = intervention.sites.iter(of.config).collect();
        let point = |site: &Site| match &intervention.edit {
            Edit::PatternTemperature { .. } | Edit::Knockout { .. } => {
                HookPoint::Block(site.layer(), BlockHook::AttnScores)
            }
            edit if edit.is_of_attention() => HookPoint::Block(site.layer(), BlockHook::Pattern),
            _ => site.point(),
        };
        let points: BTreeSet<HookPoint> = sites.iter().map(point).collect();
        let donor = self.donor(number, &intervention.edit, &points, &of.clean.ids);
        let at = match &intervention.positions {
            Some(positions) if positions.is_empty() => return,
            Some(positions) => list(positions),
            None => ":".to_owned(),
        };
        for site in &sites {
            let point = point(site);
            let statement = self.statement(*site, point, &intervention.edit, &at, donor.as_deref());
            self.places.entry(point).or_default().extend(statement);
        }
    }

    /// Says how the other run of an edit is made; gives its name.
    fn donor(
        &mut self,
        number: usize,
        edit: &Edit,
        points: &BTreeSet<HookPoint>,
        own: &[TokenId],
    ) -> Option<String> {
        let prompts = edit.donors()?;
        let ids = |prompt: &Option<&Prompt>| match prompt {
            None => "IDS".to_owned(),
            Some(Prompt::Ids(ids)) if ids == own => "IDS".to_owned(),
            Some(Prompt::Ids(ids)) => list(ids),
            Some(Prompt::Text(text)) => unreachable!("the text {text:?} was not tokenised"),
        };
        let prompts: Vec<String> = prompts.iter().map(ids).collect();
        let is_mean = matches!(edit, Edit::Mean { .. });
        let name = format!("{}_{number}", if is_mean { "mean" } else { "donor" });
        let names: Vec<String> = points.iter().map(|point| quoted(&point.to_string())).collect();
        match (self.library, is_mean) {
            (Library::TransformerLens, true) => {
                self.uses.extend(["keep", "mean_over"]);
                let prompts = list(&prompts);
                self.donors.push(format!("{name} = mean_over({prompts}, {})\n", names.join(", ")));
            }
            (Library::TransformerLens, false) => {
                self.uses.insert("keep");
                self.donors.push(format!("{name} = keep({}, {})\n", prompts[0], names.join(", ")));
            }
            (Library::Nnsight, _) => {
                let runs: Vec<String> = (0..prompts.len()).map(|run| format!("{name}_{run}")).collect();
                for (run, ids) in runs.iter().zip(&prompts) {
                    let mut trace = trace_of(ids);
                    let mut kept = Vec::new();
                    for (index, (point, text)) in points.iter().zip(&names).enumerate() {
                        let (value, split, _) = nnsight_place(*point);
                        trace.push_str(&format!("    {run}_{index} = {value}{split}.save()\n"));
                        kept.push(format!("{text}: {run}_{index}.cpu()"));
                    }
                    self.donors.push(format!("{trace}{run} = {{{}}}\n", kept.join(", ")));
                }
                let whole = match is_mean {
                    false => runs[0].clone(),
                    true => format!(
                        "{{name: torch.cat([run[name][0] for run in {}]).mean(0) for name in {}}}",
                        list(&runs),
                        list(&names)
                    ),
                };
                self.donors.push(format!("{name} = {whole}\n"));
            }
        }
        Some(name)
    }

    /// What an edit does at a site.
    fn statement(
        &mut self,
        site: Site,
        point: HookPoint,
        edit: &Edit,
        at: &str,
        donor: Option<&str>,
    ) -> Option<String> {
        let x = variable(point);
        let donor = donor.map(|name| format!("{name}[{}]", quoted(&point.to_string())));
        let donor = donor.unwrap_or_default();
        // The site's rows at some positions, of this run's tensor or of another's.
        let rows = |tensor: &str, at: &str| match (site, edit.is_of_attention()) {
            (Site::Head(HeadId { head, .. }), true) => format!("{tensor}[0, {head}, {at}]"),
            (Site::Head(HeadId { head, .. }), false) => format!("{tensor}[0, {at}, {head}]"),
            _ => format!("{tensor}[0, {at}]"),
        };
        let own = rows(x, at);
        // On NDIF a run is on a device of its own, and what other runs gave is here.
        let moved = |value: String| match self.library {
            Library::TransformerLens => value,
            Library::Nnsight => format!("{value}.to({x})"),
        };
        let value = match edit {
            Edit::Zero {} => "0.0".to_owned(),
            Edit::Mean { over: None } => format!("{}.mean(0)", rows(x, ":")),
            Edit::Mean { over: Some(_) } => match site {
                Site::Head(HeadId { head, .. }) => moved(format!("{donor}[{head}]")),
                _ => moved(donor),
            },
            Edit::Scale { alpha } => format!("{} * {own}", number(*alpha)),
            Edit::Patch { from_positions, .. } => {
                let from = from_positions.as_ref().map_or_else(|| at.to_owned(), list);
                moved(rows(&donor, &from))
            }
            Edit::ProjectOut { direction, strength } => {
                let d = match direction {
                    ActivationDirection::Values(values) => {
                        moved(format!("torch.tensor({})", list(values.iter().map(|value| number(*value)))))
                    }
                    ActivationDirection::OfToken { unembedding_of } => {
                        let id = token_of(unembedding_of).ok()?;
                        match self.library {
                            Library::TransformerLens => {
                                format!("model.unembed.weight[{id}] * model.ln_final.weight")
                            }
                            Library::Nnsight => {
                                format!("model.lm_head.weight[{id}] * model.model.norm.weight")
                            }
                        }
                    }
                };
                format!("project_out({own}, {d}, {})", number(*strength))
            }
            Edit::FreezePattern { .. } => moved(rows(&donor, at)),
            Edit::InterpolatePattern { towards, strength } => {
                let (name, matrix) = target_matrix(*towards);
                self.targets.insert(name, matrix);
                let target = moved(format!("{name}[{at}]"));
                let (rest, strength) = (number(1.0 - strength), number(*strength));
                format!("{rest} * {own} + {strength} * {target}")
            }
            Edit::PatternTemperature { tau } => format!("{own} / {}", number(*tau)),
            Edit::Knockout { edges } => {
                let (queries, keys): (Vec<usize>, Vec<usize>) = edges.iter().copied().unzip();
                let Site::Head(HeadId { head, .. }) = site else { return None };
                let cells = format!("{x}[0, {head}, {}, {}]", list(queries), list(keys));
                return (!edges.is_empty()).then(|| format!("{cells} = float(\"-inf\")"));
            }
        };
        if matches!(edit, Edit::ProjectOut { .. }) {
            self.uses.insert("project_out");
        }
        Some(format!("{own} = {value}"))
    }

    /// The edits and what they read.
    fn edits(&self, of: Reproduced<'_>) -> String {
        let mut text = String::new();
        if self.uses.contains("project_out") {
            text.push_str(
                "\n\ndef project_out(x, d, strength):\n    \"\"\"Takes a direction out of every row.\"\"\"\n    \
                 return x - strength * (x @ d / (d @ d))[:, None] * d\n",
            );
        }
        text.push_str("\n\n# Edits, in order; within a layer they act in the order of the forward pass:\n");
        for intervention in of.interventions {
            let json = serde_json::to_string(&abridged(intervention)).unwrap_or_default();
            text.push_str(&format!("# {json}\n"));
        }
        if of.interventions.is_empty() {
            text.push_str("# none\n");
        }
        for (name, matrix) in &self.targets {
            text.push_str(&format!("{name} = {matrix}\n"));
        }
        text.push_str(&self.donors.concat());
        let places = self.places.iter().filter(|(_, statements)| !statements.is_empty());
        match self.library {
            Library::TransformerLens => {
                let mut hooks = Vec::new();
                for (point, statements) in places {
                    let (name, x) = (point.to_string(), variable(*point));
                    let function = name.replace('.', "_");
                    let body: String = statements.iter().map(|s| format!("    {s}\n")).collect();
                    text.push_str(&format!(
                        "\n\ndef {function}({x}, hook):\n    {x} = {x}.clone()\n{body}    return {x}\n"
                    ));
                    hooks.push(format!("    ({}, {function}),\n", quoted(&name)));
                }
                text.push_str(&format!("\n\nHOOKS = [\n{}]\n", hooks.concat()));
            }
            Library::Nnsight => {
                text.push_str(&format!("\n{}", trace_of("IDS")));
                text.push_str("    clean = model.lm_head.output[0, -1].save()\n\n");
                text.push_str(&trace_of("IDS"));
                for (point, statements) in places {
                    let ((value, split, joined), x) = (nnsight_place(*point), variable(*point));
                    let body: String = statements.iter().map(|s| format!("    {s}\n")).collect();
                    text.push_str(&format!(
                        "    {x} = {value}.clone(){split}\n{body}    {value} = {x}{joined}\n"
                    ));
                }
                text.push_str("    edited = model.lm_head.output[0, -1].save()\n");
            }
        }
        text
    }
}

/// A pattern target as a matrix `[query, key]`: its name and how it is made.
fn target_matrix(target: PatternTarget) -> (&'static str, &'static str) {
    match target {
        PatternTarget::Identity => ("IDENTITY", "torch.eye(len(IDS))"),
        PatternTarget::Uniform => {
            ("UNIFORM", "torch.ones(len(IDS), len(IDS)).tril() / torch.arange(1, len(IDS) + 1)[:, None]")
        }
        PatternTarget::First => ("FIRST", "torch.eye(len(IDS))[[0] * len(IDS)]"),
        PatternTarget::Previous => ("PREVIOUS", "torch.eye(len(IDS))[[0, *range(len(IDS) - 1)]]"),
    }
}

/// The head of an nnsight trace of some ids.
fn trace_of(ids: &str) -> String {
    format!("with model.trace(torch.tensor([{ids}]), remote=REMOTE):\n")
}

/// An intervention without long numbers, for a comment.
fn abridged(intervention: &Intervention) -> Intervention {
    match &intervention.edit {
        Edit::ProjectOut { direction: ActivationDirection::Values(_), strength } => {
            let direction = ActivationDirection::Values(Vec::new());
            let edit = Edit::ProjectOut { direction, strength: *strength };
            Intervention { edit, ..intervention.clone() }
        }
        _ => intervention.clone(),
    }
}

/// A number as Python reads it back to the same f32.
fn number(value: f32) -> String {
    format!("{value:?}")
}
