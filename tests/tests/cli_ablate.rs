//! The command line of interventions: every kind is accepted, reports have the documented shapes, and each kind of bad input is
//! told in one clear sentence.

use headlight_tests::cli::{complaint, folder, json, text};
use headlight_tests::tiny::TinyConfig;
use serde_json::{Value, json};

const CONFIG: TinyConfig = TinyConfig {
    n_layers: 2,
    n_heads: 4,
    n_kv_heads: 2,
    d_head: 4,
    d_model: 8,
    d_mlp: 12,
    d_vocab: 30,
    tied: true,
};
const PROMPT: [&str; 2] = ["--ids", "3,5,7,3,5"];

/// A command on the tiny model and its prompt.
struct Tiny(String);

impl Tiny {
    fn new(name: &str) -> Self {
        Self::of(CONFIG, name)
    }

    fn of(config: TinyConfig, name: &str) -> Self {
        Self(text(&folder(config, &format!("ablate-{name}"), None)).to_owned())
    }

    fn arguments<'a>(&'a self, command: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
        let prompt = if rest.contains(&"--ids") { &[][..] } else { &PROMPT };
        [&[command, "--model", &self.0], prompt, rest].concat()
    }

    fn json(&self, command: &str, rest: &[&str]) -> Value {
        json(&self.arguments(command, rest))
    }

    /// What is told of a call that must fail, in one line.
    fn told(&self, command: &str, rest: &[&str]) -> String {
        complaint(&self.arguments(command, rest))
    }

    /// Fails unless a call is refused with these words.
    fn refuses(&self, command: &str, rest: &[&str], words: &str) {
        let told = self.told(command, rest);
        assert!(told.contains(words), "{command} {rest:?}: {told}");
    }

    /// The same of one edit.
    fn refuses_edit(&self, edit: Value, words: &str) {
        self.refuses("run", &["--interventions", &json!([edit]).to_string()], words);
    }
}

/// Lengths of a table's rows.
fn widths(table: &Value) -> Vec<usize> {
    let rows = table.as_array().unwrap_or_else(|| panic!("{table} is no table"));
    rows.iter().map(|row| row.as_array().map_or(0, Vec::len)).collect()
}

fn numbers(table: &Value) -> Vec<f64> {
    match table {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))],
    }
}

#[test]
fn every_kind_of_intervention_is_accepted_and_changes_the_run() {
    let tiny = Tiny::new("kinds");
    let clean = tiny.json("run", &[]);
    let direction = json!([1.0, 0.0, -1.0, 0.5, 0.0, 2.0, 0.0, 1.0]);
    let kinds = [
        json!({"kind": "zero", "heads": ["L0H1", "L1H3"]}),
        json!({"kind": "zero", "layers": [1]}),
        json!({"kind": "zero", "attn_out": [0], "mlp_out": [1], "resid_pre": [1], "positions": [2, 4]}),
        json!({"kind": "mean", "heads": ["L0H1"]}),
        json!({"kind": "mean", "heads": ["L0H1"], "over": [{"ids": [9, 8]}, {"text": "t4 t6 t8"}]}),
        json!({"kind": "scale", "heads": ["L0H1"], "alpha": -1.5}),
        json!({"kind": "patch", "heads": ["L0H1"], "from": {"ids": [4, 6, 8, 10, 12]}}),
        json!({"kind": "resample", "heads": ["L0H1"], "from": {"text": "t4 t6 t8 t10 t12"}}),
        json!({"kind": "patch", "mlp_out": [0], "from": {"ids": [9, 8]}, "positions": [4, 1], "from_positions": [1, 0]}),
        json!({"kind": "project_out", "resid_pre": [1], "direction": direction}),
        json!({"kind": "project_out", "resid_pre": [1], "direction": {"unembedding_of": {"ids": [9]}}}),
        json!({"kind": "freeze_pattern", "heads": ["L0H0", "L0H1"], "from": {"ids": [4, 6, 8, 10, 12]}}),
        json!({"kind": "interpolate_pattern", "heads": ["L0H1"], "towards": "identity", "strength": 1.0}),
        json!({"kind": "interpolate_pattern", "heads": ["L0H1"], "towards": "uniform", "strength": 0.5}),
        json!({"kind": "interpolate_pattern", "heads": ["L0H1"], "towards": "first", "strength": 0.7}),
        json!({"kind": "interpolate_pattern", "heads": ["L0H1"], "towards": "previous", "strength": 1.0, "positions": [4]}),
        json!({"kind": "pattern_temperature", "heads": ["L0H1"], "tau": 0.1}),
        json!({"kind": "knockout", "heads": ["L0H1"], "edges": [[4, 4], [3, 0]]}),
    ];
    for kind in &kinds {
        let run = tiny.json("run", &["--interventions", &json!([kind]).to_string()]);
        assert_ne!(run["logits_top"], clean["logits_top"], "{kind} changed nothing");
        assert_eq!(run["nll_nats"].as_array().map(Vec::len), Some(4), "{kind}");
    }
    let all = Value::from(kinds.to_vec()).to_string();
    let run = tiny.json("run", &["--interventions", &all]);
    assert_ne!(run["logits_top"], clean["logits_top"], "all of them together, in order");
    // Which of this prompt's own values are put back is nothing: no number moves.
    for kind in
        [json!({"kind": "patch", "layers": [0, 1]}), json!({"kind": "freeze_pattern", "heads": ["L1H2"]})]
    {
        let run = tiny.json("run", &["--interventions", &json!([kind]).to_string()]);
        assert_eq!(run["logits_top"], clean["logits_top"], "{kind} changed something");
    }
}

#[test]
fn a_token_whose_direction_is_projected_out_of_everything_has_no_logit() {
    let tiny = Tiny::new("unembedding");
    let run = |edits: Value| {
        let run = tiny.json("run", &["--top", "30", "--interventions", &edits.to_string()]);
        let top = run["logits_top"].as_array().cloned().unwrap_or_default();
        let of_token =
            |id: u64| top.iter().find(|token| token["id"] == id).map(|token| token["logit"].as_f64());
        [9, 4].map(|id| of_token(id).flatten().expect("every token is among the top"))
    };
    let direction = json!({"unembedding_of": {"text": "t9"}});
    let edits = json!([
        {"kind": "project_out", "resid_pre": [0], "direction": direction},
        {"kind": "project_out", "layers": [0, 1], "direction": direction},
    ]);
    let (clean, edited) = (run(json!([])), run(edits));
    assert!(clean[0].abs() > 1e-2, "{clean:?}");
    assert!(edited[0].abs() < 1e-5, "{edited:?}");
    assert!(edited[1].abs() > 1e-2, "another token keeps its own: {edited:?}");
}

#[test]
fn a_sweep_has_an_effect_for_every_head_or_mlp() {
    let tiny = Tiny::new("sweep");
    let clean = tiny.json("run", &[]);
    let heads = tiny.json("sweep", &["--kind", "zero", "--metric", "logprob", "--token", "4"]);
    assert_eq!(widths(&heads["effects"]), [4, 4]);
    assert_eq!(
        (&heads["ids"], &heads["metric"], &heads["token"]),
        (&json!([3, 5, 7, 3, 5]), &json!("logprob"), &json!(4))
    );
    assert!(heads["clean"].as_f64().is_some_and(|logprob| logprob < 0.0));
    assert_eq!(heads["provenance"], clean["provenance"]);
    // An effect is edited minus clean.
    let edit = r#"[{"kind":"zero","heads":["L1H2"]}]"#;
    let edited = tiny.json("run", &["--top", "30", "--interventions", edit]);
    let logprob = edited["logits_top"].as_array().and_then(|top| top.iter().find(|token| token["id"] == 4));
    let logprob = logprob.and_then(|token| token["logprob"].as_f64()).expect("the token is among all");
    let effect = numbers(&heads["effects"][1][2])[0];
    let wanted = logprob - numbers(&heads["clean"])[0];
    assert!((effect - wanted).abs() < 1e-5, "{effect} and {wanted}");
    let mlps = tiny.json("sweep", &["--kind", "mean", "--targets", "mlps", "--metric", "kl"]);
    assert_eq!(widths(&mlps["effects"]), [1, 1]);
    assert_eq!((&mlps["clean"], &mlps["token"]), (&json!(0.0), &Value::Null));
    assert!(numbers(&mlps["effects"]).iter().all(|kl| *kl >= 0.0));
    // The clean loss of the tokens at 2..4 is the mean of what the run gives for them.
    let loss = tiny.json("sweep", &["--metric", "loss", "--positions", "2..4"]);
    let wanted = numbers(&clean["nll_nats"])[1..].iter().sum::<f64>() / 3.0;
    assert!((numbers(&loss["clean"])[0] - wanted).abs() < 1e-5);
    // The prompt's length as B is its end, as an open end is.
    for same in ["2..5", "2.."] {
        assert_eq!(
            tiny.json("sweep", &["--metric", "loss", "--positions", same])["effects"],
            loss["effects"]
        );
    }
    let last = tiny.json("sweep", &["--metric", "logit-diff", "--edit-positions", "4"]);
    assert_ne!(last["token"], last["versus"]);
    let turned = tiny.json("sweep", &["--edit", r#"{"kind":"scale","alpha":-1}"#]);
    assert_eq!(widths(&turned["effects"]), [4, 4]);
    // A difference is never of a token with itself, whichever of the two is left out.
    let best = last["token"].to_string();
    let other = tiny.json("sweep", &["--metric", "logit_diff", "--versus", &best]);
    assert_ne!(other["token"], other["versus"]);
}

#[test]
fn a_sweep_of_sets_edits_the_heads_of_a_set_together() {
    let tiny = Tiny::new("sets");
    let metric = ["--metric", "logprob", "--token", "4"];
    let sweep = |more: &[&str]| tiny.json("sweep", &[&metric, more].concat());
    let heads = sweep(&[]);
    let sets = sweep(&["--sets", r#"[["L0H3"],["L1H2","L0H1"],["L1H2"]]"#]);
    assert_eq!(widths(&sets["effects"]), [3]);
    assert_eq!(sets["effects"][0][0], heads["effects"][0][3]);
    assert_eq!(sets["effects"][0][2], heads["effects"][1][2]);
    assert_eq!(sets["request"]["targets"], json!({"sets": [["L0H3"], ["L0H1", "L1H2"], ["L1H2"]]}));
    assert_eq!(heads["request"]["targets"], json!("heads"));
    let logprob = |more: &[&str]| {
        let run = tiny.json("run", &[&["--top", "30"], more].concat());
        let top = run["logits_top"].as_array().expect("tokens").clone();
        numbers(&top.iter().find(|token| token["id"] == 4).expect("it is among all")["logprob"])[0]
    };
    let edits = r#"[{"kind":"zero","heads":["L1H2"]},{"kind":"zero","heads":["L0H1"]}]"#;
    let wanted = logprob(&["--interventions", edits]) - logprob(&[]);
    let effect = numbers(&sets["effects"][0][1])[0];
    assert!((effect - wanted).abs() < 1e-5, "{effect} and {wanted}");
}

#[test]
fn attribution_lens_and_ov_have_their_shapes() {
    let tiny = Tiny::new("explain");
    let run = tiny.json("run", &["--top", "30"]);
    let dla = tiny.json("dla", &["--token", "4"]);
    assert_eq!((widths(&dla["heads"]), widths(&dla["heads_centered"])), (vec![4, 4], vec![4, 4]));
    assert_eq!((numbers(&dla["mlps"]).len(), &dla["position"]), (2, &json!(4)));
    let sum = |name: &str| numbers(&dla[name]).iter().sum::<f64>();
    let parts = sum("embed") + sum("heads") + sum("mlps");
    assert!((parts - numbers(&dla["logit"])[0]).abs() < 1e-4, "{parts} and {}", dla["logit"]);
    assert_eq!((&dla["token_text"], &dla["versus_text"]), (&json!("t4"), &Value::Null));
    let difference = tiny.json("dla", &["--token", "4", "--versus", "6", "--position", "1"]);
    assert_eq!((&difference["versus_text"], &difference["mean_logit"]), (&json!("t6"), &json!(0.0)));
    let lens = tiny.json("lens", &[]);
    assert_eq!((widths(&lens["cells"]), widths(&lens["texts"])), (vec![5, 5], vec![5, 5]));
    assert_eq!(
        lens["cells"][1][4]["id"], run["logits_top"][0]["id"],
        "the last layer says what the model says"
    );
    let followed = tiny.json("lens", &["--token", "4"]);
    assert!(followed["cells"][0][0]["followed_rank"].is_number());
    let ov = tiny.json("ov", &["--head", "L1H2", "--source-pos", "1", "--top", "3"]);
    assert_eq!(
        (ov["raised"].as_array().map(Vec::len), ov["lowered"].as_array().map(Vec::len)),
        (Some(3), Some(3))
    );
    assert_eq!((&ov["head"], &ov["own"]["id"]), (&json!("L1H2"), &json!(5)));
    assert!(numbers(&ov["raised"][0]["logit"])[0] >= numbers(&ov["raised"][1]["logit"])[0]);
}

#[test]
fn patching_controls_and_continuations_have_their_shapes() {
    let tiny = Tiny::new("patch");
    let patch = tiny.json("patch", &["--corrupted-ids", "3,5,9,3,5", "--token", "4", "--versus", "6"]);
    for table in ["resid_pre", "attn_out", "mlp_out"] {
        assert_eq!(widths(&patch[table]), [5, 5], "{table}");
        assert_eq!(numbers(&patch[table])[..2], [0.0, 0.0], "{table}: the prompts begin alike");
    }
    assert_eq!((widths(&patch["heads"]), &patch["first_difference"]), (vec![4, 4], &json!(2)));
    assert_eq!((&patch["tokens"][2], &patch["corrupted_tokens"][2]), (&json!("t7"), &json!("t9")));
    assert_eq!((&patch["token_text"], &patch["versus_text"]), (&json!("t4"), &json!("t6")));
    let noise = tiny.json(
        "patch",
        &["--corrupted", "t3 t5 t9 t3 t5", "--direction", "noise", "--metric", "logprob", "--token", "4"],
    );
    assert_eq!((&noise["resid_pre"][0][0], &noise["request"]["direction"]), (&json!(1.0), &json!("noise")));
    let edits = r#"[{"kind":"zero","heads":["L0H1","L1H2"]}]"#;
    let controls =
        tiny.json("controls", &["--interventions", edits, "--draws", "7", "--seed", "3", "--metric", "kl"]);
    assert_eq!(
        (controls["random_effects"].as_array().map(Vec::len), widths(&controls["draws"])),
        (Some(7), vec![2; 7])
    );
    assert_eq!((&controls["n_others"], &controls["clean"]), (&json!(6), &json!(0.0)));
    assert!(numbers(&controls["random_sd"])[0] > 0.0 && numbers(&controls["effect"])[0] > 0.0);
    let again =
        tiny.json("controls", &["--interventions", edits, "--draws", "7", "--seed", "3", "--metric", "kl"]);
    assert_eq!(again["draws"], controls["draws"], "a seed gives the same draws");
    let generated = tiny.json("generate", &["--max-new-tokens", "6"]);
    assert_eq!(
        (&generated["prompt_ids"], generated["ids"].as_array().map(Vec::len)),
        (&json!([3, 5, 7, 3, 5]), Some(6))
    );
    assert_eq!(generated["tokens"].as_array().map(Vec::len), Some(6));
    let first = tiny.json("run", &[])["logits_top"][0]["id"].clone();
    assert_eq!(generated["ids"][0], first, "greedy");
    let drawn = |seed| {
        tiny.json("generate", &["--temperature", "3", "--seed", seed, "--max-new-tokens", "12"])["ids"]
            .clone()
    };
    assert_eq!(drawn("5"), drawn("5"));
    assert_ne!(drawn("5"), drawn("6"));
    let edited = tiny.json(
        "generate",
        &["--max-new-tokens", "6", "--interventions", r#"[{"kind":"zero","layers":[0,1]}]"#],
    );
    assert_ne!(edited["ids"], generated["ids"]);
}

#[test]
fn an_edit_that_fits_no_place_is_refused() {
    let tiny = Tiny::new("places");
    tiny.refuses_edit(json!({"kind": "melt", "heads": ["L0H0"]}), "unknown variant `melt`");
    tiny.refuses_edit(
        json!({"kind": "zero", "heads": ["L0H0"], "position": [1]}),
        "unknown field `position`",
    );
    tiny.refuses_edit(json!({"kind": "zero", "heads": ["0.1"]}), "\"0.1\" is not a head");
    tiny.refuses_edit(json!({"kind": "zero"}), "names no place");
    tiny.refuses_edit(
        json!({"kind": "zero", "heads": ["L18H6"]}),
        "L18H6 does not exist: this model has layers 0 to 1 and heads 0 to 3",
    );
    tiny.refuses_edit(json!({"kind": "mean", "mlp_out": [2]}), "layer 2 does not exist");
    tiny.refuses_edit(
        json!({"kind": "zero", "heads": ["L0H0"], "positions": [5]}),
        "position 5 does not exist: the prompt has positions 0 to 4",
    );
    tiny.refuses_edit(
        json!({"kind": "zero", "heads": ["L0H0"], "positions": [1, 3, 1]}),
        "position 1 stands twice",
    );
    tiny.refuses_edit(
        json!({"kind": "pattern_temperature", "tau": 2, "attn_out": [0]}),
        "acts on heads alone",
    );
    let flat = Tiny::of(TinyConfig { d_mlp: 0, ..CONFIG }, "flat");
    flat.refuses_edit(json!({"kind": "zero", "mlp_out": [0]}), "attention only");
    flat.refuses("sweep", &["--targets", "mlps"], "attention only");
    assert_eq!(widths(&flat.json("sweep", &[])["effects"]), [4, 4]);
    tiny.refuses("run", &["--interventions", "{}"], "--interventions is not a list of edits");
    tiny.refuses(
        "run",
        &["--interventions", "[{\"kind\": \"zero\""],
        "--interventions is not a list of edits",
    );
}

#[test]
fn a_number_that_means_nothing_is_refused() {
    let tiny = Tiny::new("numbers");
    let scale = |alpha: &str| format!(r#"[{{"kind":"scale","heads":["L0H0"],"alpha":{alpha}}}]"#);
    tiny.refuses(
        "run",
        &["--interventions", &scale("1e9")],
        "alpha is 1000000000; give a number from -100 to 100",
    );
    for alpha in ["NaN", "null", "1e999", "\"much\""] {
        tiny.refuses("run", &["--interventions", &scale(alpha)], "--interventions is not a list of edits");
    }
    tiny.refuses_edit(json!({"kind": "scale", "heads": ["L0H0"]}), "missing field `alpha`");
    tiny.refuses_edit(
        json!({"kind": "pattern_temperature", "heads": ["L0H0"], "tau": 0}),
        "tau is 0; give a temperature from 0.001",
    );
    tiny.refuses_edit(json!({"kind": "pattern_temperature", "heads": ["L0H0"], "tau": -1}), "tau is -1");
    let towards = |strength: f32| json!({"kind": "interpolate_pattern", "heads": ["L0H0"], "towards": "first", "strength": strength});
    tiny.refuses_edit(towards(1.5), "strength is 1.5; give 0 to 1");
    tiny.refuses_edit(
        json!({"kind": "interpolate_pattern", "heads": ["L0H0"], "towards": "last", "strength": 1}),
        "unknown variant `last`",
    );
    tiny.refuses_edit(
        json!({"kind": "project_out", "resid_pre": [0], "direction": [1, 2]}),
        "direction has 2 numbers and must have 8",
    );
    tiny.refuses_edit(
        json!({"kind": "project_out", "resid_pre": [0], "direction": vec![0.0; 8]}),
        "not all of them 0",
    );
    let of_token = |token: Value| json!({"kind": "project_out", "resid_pre": [0], "direction": {"unembedding_of": token}});
    tiny.refuses_edit(of_token(json!({"text": "t1 t2"})), "read from one token and this is 2");
    tiny.refuses_edit(of_token(json!({"text": ""})), "read from one token and this is 0");
    tiny.refuses_edit(of_token(json!({"ids": [1000]})), "token id 1000 does not exist");
    tiny.refuses_edit(
        json!({"kind": "project_out", "heads": ["L0H0"], "direction": {"unembedding_of": {"ids": [1]}}}),
        "direction has 8 numbers and must have 4",
    );
    tiny.refuses_edit(
        json!({"kind": "project_out", "resid_pre": [0], "direction": "up"}),
        "a direction is a list of numbers or",
    );
    tiny.refuses("generate", &["--temperature", "nan"], "temperature is NaN; give 0 to 100");
}

#[test]
fn another_prompt_that_does_not_line_up_is_refused() {
    let tiny = Tiny::new("donors");
    tiny.refuses_edit(
        json!({"kind": "mean", "heads": ["L0H0"], "over": []}),
        "mean over an empty set of prompts is nothing",
    );
    tiny.refuses_edit(json!({"kind": "mean", "heads": ["L0H0"], "over": [{"ids": []}]}), "prompt is empty");
    tiny.refuses_edit(
        json!({"kind": "patch", "heads": ["L0H0"], "from": {"ids": [4, 6, 8]}}),
        "has 3 tokens and this one 5; make them equally long, or say which positions align",
    );
    tiny.refuses_edit(
        json!({"kind": "freeze_pattern", "heads": ["L0H0"], "from": {"ids": [4, 6, 8]}}),
        "whose pattern is to be frozen has 3 tokens and this one 5; make them equally long",
    );
    let unpaired = json!({"kind": "patch", "heads": ["L0H0"], "from": {"ids": [4, 6, 8]}, "positions": [1, 2], "from_positions": [0]});
    tiny.refuses_edit(unpaired, "2 positions and 1 from_positions do not pair");
    let outside = json!({"kind": "patch", "heads": ["L0H0"], "from": {"ids": [4, 6, 8]}, "positions": [1], "from_positions": [3]});
    tiny.refuses_edit(outside, "position 3 does not exist: the prompt has positions 0 to 2");
    tiny.refuses_edit(
        json!({"kind": "patch", "heads": ["L0H0"], "from": {"ids": [4, 6, 8, 99, 1]}}),
        "token id 99 does not exist",
    );
}

#[test]
fn edges_that_no_attention_has_are_refused() {
    let tiny = Tiny::new("edges");
    let knockout = |edges: Value| json!({"kind": "knockout", "heads": ["L0H2"], "edges": edges});
    tiny.refuses_edit(knockout(json!([[1, 3]])), "edge [1, 3] looks ahead");
    tiny.refuses_edit(knockout(json!([[7, 3]])), "position 7 does not exist");
    tiny.refuses_edit(knockout(json!([[1, 0], [1, 1]])), "query 1 of L0H2 would have no key left");
    let together = json!([knockout(json!([[1, 0]])), knockout(json!([[1, 1]]))]).to_string();
    tiny.refuses("run", &["--interventions", &together], "query 1 of L0H2 would have no key left");
    let twice = json!({"kind": "knockout", "heads": ["L0H2"], "edges": [[1, 0]], "positions": [1]});
    tiny.refuses_edit(twice, "leave positions out of a knockout");
}

#[test]
fn a_measurement_of_nothing_is_refused() {
    let tiny = Tiny::new("metrics");
    tiny.refuses(
        "sweep",
        &["--metric", "accuracy"],
        "there is no metric \"accuracy\"; choose one of logprob, logit, logit_diff, kl, loss",
    );
    tiny.refuses("sweep", &["--kind", "melt"], "--kind melt is not zero or mean");
    tiny.refuses("sweep", &["--edit", "{\"kind\":\"scale\"}"], "missing field `alpha`");
    tiny.refuses("sweep", &["--targets", "neurons"], "heads, mlps");
    tiny.refuses("sweep", &["--positions", "9..3"], "\"9..3\" is no range of positions");
    tiny.refuses("sweep", &["--positions", "a..b"], "\"a..b\" is no range of positions");
    for outside in ["3..7", "6..", "9..9"] {
        tiny.refuses("sweep", &["--positions", outside], "does not exist: the prompt has positions 0 to 4");
        tiny.refuses(
            "sweep",
            &["--edit-positions", outside],
            "does not exist: the prompt has positions 0 to 4",
        );
    }
    tiny.refuses("sweep", &["--positions", "0..99999999999999"], "position 99999999999999 does not exist");
    tiny.refuses(
        "sweep",
        &["--metric", "loss", "--positions", "0..2"],
        "a loss needs a token and one before it",
    );
    tiny.refuses("sweep", &["--ids", "3", "--metric", "loss"], "a loss needs a token and one before it");
    tiny.refuses(
        "sweep",
        &["--metric", "logit_diff", "--token", "4", "--versus", "4"],
        "the two tokens to compare are the same",
    );
    tiny.refuses("sweep", &["--token", "30"], "token id 30 does not exist");
    tiny.refuses(
        "sweep",
        &["--targets", "mlps", "--edit", r#"{"kind":"pattern_temperature","tau":2}"#],
        "an edit of attention cannot sweep MLPs",
    );
    tiny.refuses("sweep", &["--sets", "[]"], "names no set of heads");
    tiny.refuses("sweep", &["--sets", r#"[["L0H0"],[]]"#], "set 1 of the sweep names no head");
    tiny.refuses("sweep", &["--sets", r#"[["L9H0"]]"#], "L9H0 does not exist");
    tiny.refuses("sweep", &["--sets", r#"["L0H0"]"#], "--sets is not a list of lists of heads");
    tiny.refuses("sweep", &["--sets", r#"[["L0H0"]]"#, "--targets", "mlps"], "cannot be used with");
    tiny.refuses("dla", &["--token", "4", "--versus", "4"], "the two tokens to compare are the same");
    tiny.refuses("dla", &["--position", "5"], "position 5 does not exist");
    tiny.refuses("lens", &["--token", "30"], "token id 30 does not exist");
    tiny.refuses("ov", &["--head", "L0H0", "--source-pos", "5"], "position 5 does not exist");
    tiny.refuses("ov", &["--head", "L2H0", "--source-pos", "0"], "L2H0 does not exist");
    tiny.refuses("ov", &["--head", "L2", "--source-pos", "0"], "\"L2\" is not a head");
}

#[test]
fn a_patching_of_nothing_is_refused() {
    let tiny = Tiny::new("pairs");
    tiny.refuses("patch", &[], "--corrupted");
    tiny.refuses(
        "patch",
        &["--corrupted-ids", "3,5,7,3"],
        "the clean prompt has 5 tokens and the corrupted one 4; make them equally long",
    );
    tiny.refuses(
        "patch",
        &["--corrupted-ids", "3,5,7,3,5"],
        "the clean and the corrupted prompt are the same",
    );
    let pair = ["--corrupted-ids", "3,5,9,3,5"];
    for metric in ["kl", "loss"] {
        let words = format!("patching cannot be measured in {metric}");
        tiny.refuses("patch", &[&pair[..], &["--metric", metric]].concat(), &words);
    }
    tiny.refuses(
        "patch",
        &[&pair[..], &["--token", "4", "--versus", "4"]].concat(),
        "the two tokens to compare are the same",
    );
}

#[test]
fn controls_of_nothing_are_refused() {
    let tiny = Tiny::new("controls");
    tiny.refuses("controls", &[], "no head is edited");
    tiny.refuses("controls", &["--interventions", r#"[{"kind":"zero","mlp_out":[0]}]"#], "no head is edited");
    let three = r#"[{"kind":"zero","heads":["L0H0","L0H1","L0H2"]}]"#;
    tiny.refuses("controls", &["--interventions", three], "the layers of these 3 heads have only 1 others");
    let one = r#"[{"kind":"zero","heads":["L0H0"]}]"#;
    tiny.refuses("controls", &["--interventions", one, "--draws", "1"], "n_draws is 1; give 2 to 1000");
}
