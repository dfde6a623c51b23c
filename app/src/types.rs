//! `static/embed/headlight.d.ts`: TypeScript's view of `window.headlight`, from the Rust types that cross the border. The
//! test fails while the file is out of date; `HEADLIGHT_BLESS=1 cargo test -p headlight-app types` writes it.

use std::collections::BTreeSet;

use headlight_core::ablate::Metric;
use headlight_core::ablate::controls::{ControlsFindings, ControlsSpec};
use headlight_core::ablate::dla::{DlaFindings, DlaSpec};
use headlight_core::ablate::logit_lens::LensCell;
use headlight_core::ablate::metric::MetricSpec;
use headlight_core::ablate::ov::OvFindings;
use headlight_core::ablate::patching::{Direction, PatchFindings};
use headlight_core::ablate::sweep::{SweepSpec, Targets};
use headlight_core::backend::Precision;
use headlight_core::detect::attention::CopyLosses;
use headlight_core::detect::doc::{Doc, Threshold};
use headlight_core::detect::retrieval::{CopyScores, Placement, ReadPrompt, Scoring, ShownPrompt};
use headlight_core::detect::{AttentionTarget, OfDraw};
use headlight_core::engine::Golden;
use headlight_core::hooks::{ActivationDirection, Edit, Intervention, PatternTarget, Prompt, Sites};
use headlight_core::ids::HeadId;
use headlight_core::report::{
    BenchReport, BosPolicy, ControlsReport, ControlsRequest, DetectProvenance, DetectReport, DetectRequest,
    DlaReport, DlaRequest, GenerateReport, GenerateRequest, HeadScore, KernelSpeed, LensReport, LensRequest,
    LoadTimes, ModelInfo, OvReport, OvRequest, PatchReport, PatchRequest, PatternReport, PrefillSpeed,
    Provenance, RunReport, RunRequest, SweepReport, SweepRequest, TokenDirect, TokenLogit, TokensReport,
};
use headlight_core::script::{Library, ScriptRequest};
use ts_rs::{Config, TS};

use crate::lesson::{AnswerKind, AnswerSheet, Answered, Lesson, Lock, Question};
use crate::link::{Link, LinkedModel, LinkedScores, Numbers, Part, RoundedScores};
use crate::models::ManifestModel;
use crate::protocol::{BackendChoice, EditWhere, ErrorReport, ModelFormat, PlacedEdit};
use crate::state::edits::HeadSet;
use crate::state::lab::LabSettings;
use crate::state::settings::{Candidates, CustomPattern, RetrievalSettings, Settings, StimulusChoice};

/// The file, as it is checked in.
const CHECKED_IN: &str = include_str!("../../static/embed/headlight.d.ts");
/// What no derive knows: the methods.
const METHODS: &str = include_str!("types/methods.d.ts");

fn declarations() -> String {
    // What a browser holds of a u64 is a number.
    let config = Config::new().with_large_int("number");
    let mut text = "// Types of window.headlight and of <headlight-view>. Made from the Rust types by `HEADLIGHT_BLESS=1 cargo test\n\
                    // -p headlight-app types`; do not edit. Heads are written \"L5H1\", counting from 0.\n\n"
        .to_owned();
    macro_rules! declare {
        ($($name:ty),* $(,)?) => {
            $(text.push_str(&format!("export {}\n\n", <$name as TS>::decl(&config)));)*
        };
    }
    text.push_str("export type JsonValue = number | string | boolean | Array<JsonValue> | { [key in string]: JsonValue } | null;\n\n");
    declare![
        HeadId,
        Prompt,
        BosPolicy,
        PatternTarget,
        ActivationDirection,
        Edit,
        Sites,
        Intervention,
        ModelInfo,
        Golden,
        TokensReport,
        TokenLogit,
        Provenance,
        RunRequest,
        RunReport,
        PatternReport,
        AttentionTarget,
        Threshold,
        Doc,
        DetectRequest,
        CopyLosses,
        Scoring,
        CopyScores,
        Placement,
        ShownPrompt,
        ReadPrompt,
        OfDraw,
        Precision,
        DetectReport,
        DetectProvenance,
        HeadScore,
        Metric,
        MetricSpec,
        Targets,
        SweepSpec,
        SweepRequest,
        Library,
        ScriptRequest,
        SweepReport,
        DlaSpec,
        DlaFindings,
        DlaRequest,
        TokenDirect,
        DlaReport,
        LensRequest,
        LensCell,
        LensReport,
        OvRequest,
        OvFindings,
        OvReport,
        Direction,
        PatchFindings,
        PatchRequest,
        PatchReport,
        ControlsSpec,
        ControlsFindings,
        ControlsRequest,
        ControlsReport,
        GenerateRequest,
        GenerateReport,
        PrefillSpeed,
        KernelSpeed,
        LoadTimes,
        BenchReport,
        ModelFormat,
        ManifestModel,
        ErrorReport,
        EditWhere,
        PlacedEdit,
        HeadSet,
        LabSettings,
        StimulusChoice,
        Candidates,
        CustomPattern,
        RetrievalSettings,
        Settings,
        Part,
        BackendChoice,
        LinkedModel,
        LinkedScores,
        RoundedScores,
        Numbers,
        AnswerKind,
        Question,
        Lock,
        Lesson,
        Answered,
        AnswerSheet,
        Link,
    ];
    text.push_str(METHODS);
    text
}

#[test]
fn the_types_for_scripts_are_those_of_the_program() {
    let now = declarations();
    if std::env::var_os("HEADLIGHT_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../static/embed/headlight.d.ts");
        std::fs::write(path, &now).expect("the file is writable");
        return;
    }
    assert!(now == CHECKED_IN, "static/embed/headlight.d.ts is out of date; see the top of app/src/types.rs");
}

#[test]
fn every_method_of_the_page_has_a_type_and_is_open_to_embeds() {
    let api = include_str!("api.rs");
    let bridge = include_str!("../../static/embed/bridge.js");
    let named = |start: &str| -> Vec<String> {
        let after = api.split(start).skip(1);
        after.filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect()
    };
    let mut methods = named("method(&api, \"");
    methods.extend(named("request!(\""));
    assert!(methods.len() > 15, "{methods:?}");
    for method in methods {
        assert!(METHODS.contains(&format!("  {method}(")), "{method} has no type");
        assert!(bridge.contains(&format!("\"{method}\"")), "{method} is not open to embeds");
    }
}

#[test]
fn every_type_that_is_used_is_declared() {
    // Types that TypeScript and browsers bring, and the one parameter of a type.
    const KNOWN: &str = "Array Promise Record Error HTMLElement Window HTMLElementTagNameMap CustomEvent Extract Omit \
                         Partial Pick PropertyKey Needed";
    let text = declarations();
    let code: String = text.lines().map(without_comment_and_strings).collect::<Vec<_>>().join("\n");
    let words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let is_type = |word: &str| word.len() > 1 && word.starts_with(|letter: char| letter.is_ascii_uppercase());
    let declared: BTreeSet<&str> = words
        .windows(2)
        .filter(|pair| ["type", "interface", "class"].contains(&pair[0]))
        .map(|pair| pair[1])
        .collect();
    let used = words.iter().copied().filter(|word| is_type(word));
    let missing: BTreeSet<&str> = used
        .filter(|word| !declared.contains(word) && !KNOWN.split(' ').any(|known| known == *word))
        .collect();
    assert!(declared.contains("Edit") && missing.is_empty(), "not declared: {missing:?}");
}

/// A line of TypeScript without what is no code.
fn without_comment_and_strings(line: &str) -> String {
    let line = line.trim_start();
    if ["//", "/*", "*"].iter().any(|mark| line.starts_with(mark)) {
        return String::new();
    }
    line.split('"').step_by(2).collect::<Vec<_>>().join(" ")
}
