//! The command line: shapes of its JSON, and one clear sentence for each kind of bad input.

use std::path::PathBuf;

use headlight_tests::cli::{complaint, headlight_into, json, text};
use headlight_tests::tiny::TinyConfig;

const CONFIG: TinyConfig = TinyConfig {
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    d_head: 4,
    d_model: 8,
    d_mlp: 12,
    d_vocab: 30,
    tied: true,
};

fn folder(name: &str, replaced: Option<(&str, &[u8])>) -> PathBuf {
    headlight_tests::cli::folder(CONFIG, name, replaced)
}

#[test]
fn tokens_run_and_patterns_print_the_documented_shapes() {
    let folder = folder("shapes", None);
    let model = text(&folder);
    let tokens = json(&["tokens", "--model", model, "--text", "t3 t5 t3"]);
    assert_eq!(tokens["ids"], serde_json::json!([3, 5, 3]));
    assert_eq!(tokens["tokens"], serde_json::json!(["t3", "t5", "t3"]));
    let run = json(&["run", "--model", model, "--ids", "3,5,3", "--top", "4"]);
    assert_eq!(run["logits_top"].as_array().map(Vec::len), Some(4));
    assert_eq!(run["nll_nats"].as_array().map(Vec::len), Some(2));
    for key in ["id", "token", "logit", "logprob"] {
        assert!(!run["logits_top"][0][key].is_null(), "{key}");
    }
    assert!(run["logsumexp"].is_number());
    let by_text = json(&["run", "--model", model, "--text", "t3 t5 t3", "--top", "4"]);
    assert_eq!(by_text["logits_top"], run["logits_top"]);
    let patterns = json(&["patterns", "--model", model, "--ids", "3,5,3", "--head", "L1H0"]);
    assert_eq!(patterns["pattern"].as_array().map(Vec::len), Some(3));
    assert_eq!(patterns["pattern"][0], serde_json::json!([1.0, 0.0, 0.0]));
    let edits = r#"[{"kind":"zero","heads":["L0H1"]},{"kind":"scale","heads":["L1H0"],"alpha":2.0}]"#;
    let edited = json(&["run", "--model", model, "--ids", "3,5,3", "--top", "4", "--interventions", edits]);
    assert_ne!(edited["logits_top"], run["logits_top"]);
}

#[test]
fn bad_requests_are_told_in_a_sentence() {
    let folder = folder("requests", None);
    let model = text(&folder);
    let told = complaint(&["run", "--model", model, "--text", ""]);
    assert!(told.contains("prompt is empty"), "{told}");
    let told = complaint(&["patterns", "--model", model, "--ids", "1", "--head", "L7H0"]);
    assert!(told.contains("L7H0 does not exist") && told.contains("layers 0 to 1"), "{told}");
    let told = complaint(&["run", "--model", model, "--ids", "99"]);
    assert!(told.contains("token id 99 does not exist"), "{told}");
    let long = vec!["1"; 257].join(",");
    let told = complaint(&["run", "--model", model, "--ids", &long]);
    assert!(told.contains("257 tokens long") && told.contains("at most 256"), "{told}");
    let edit = r#"[{"kind":"zero","heads":["L0H9"]}]"#;
    let told = complaint(&["run", "--model", model, "--ids", "1", "--interventions", edit]);
    assert!(told.contains("L0H9 does not exist"), "{told}");
    let told =
        complaint(&["run", "--model", model, "--ids", "1", "--interventions", "[{\"kind\":\"melt\"}]"]);
    assert!(told.contains("--interventions"), "{told}");
    let told = complaint(&["run", "--model", model, "--text", "t1", "--bos", "on"]);
    assert!(told.contains("names no BOS"), "{told}");
}

#[test]
fn wrong_files_are_told_in_a_sentence() {
    let told = complaint(&["run", "--model", "no-such-model.gguf", "--ids", "1"]);
    assert!(told.contains("there is no model"), "{told}");
    let odd = folder("odd", Some(("page.gguf", b"<!DOCTYPE html><html>Not found</html>")));
    let told = complaint(&["run", "--model", text(&odd.join("page.gguf")), "--ids", "1"]);
    assert!(told.contains("web page"), "{told}");
    std::fs::write(odd.join("renamed.gguf"), b"PK\x03\x04 a zip file").expect("writable");
    let told = complaint(&["run", "--model", text(&odd.join("renamed.gguf")), "--ids", "1"]);
    assert!(told.contains("not a GGUF"), "{told}");
    std::fs::write(odd.join("empty.gguf"), b"").expect("writable");
    complaint(&["run", "--model", text(&odd.join("empty.gguf")), "--ids", "1"]);
    let whole = CONFIG.checkpoint(3).weights;
    let cut = folder("cut", Some(("model.safetensors", &whole[..whole.len() / 2])));
    complaint(&["run", "--model", text(&cut), "--ids", "1"]);
    let larger = TinyConfig { d_vocab: 31, ..CONFIG }.checkpoint(3);
    let mixed = folder("mixed", Some(("tokenizer.json", &larger.tokenizer)));
    let told = complaint(&["run", "--model", text(&mixed), "--ids", "1"]);
    assert!(told.contains("does not belong to this model"), "{told}");
    let mixed = folder("shape", Some(("model.safetensors", &larger.weights)));
    let told = complaint(&["run", "--model", text(&mixed), "--ids", "1"]);
    assert!(told.contains("has shape"), "{told}");
}

#[test]
fn a_gguf_cut_anywhere_is_told_in_a_sentence() {
    let whole = std::fs::read(xtask::models::smollm2_path()).expect("SmolLM2 is there: cargo xtask models");
    let folder = folder("gguf", None);
    for n_bytes in [5, 100, 1_000_000, whole.len() / 2, whole.len() - 1] {
        let path = folder.join(format!("cut-{n_bytes}.gguf"));
        std::fs::write(&path, &whole[..n_bytes]).expect("writable");
        let told = complaint(&["run", "--model", text(&path), "--ids", "1"]);
        assert!(told.contains("cut short"), "{n_bytes} bytes: {told}");
        std::fs::remove_file(&path).expect("ours");
    }
}

#[test]
fn the_bundled_model_answers_to_its_name() {
    let run = json(&["run", "--model", "induction-2l", "--text", "one two three one two"]);
    assert!(run["logits_top"][0]["logprob"].as_f64().is_some_and(|logprob| logprob <= 0.0));
    assert_eq!(run["ids"][0], 0, "its metadata asks for a BOS");
    let without =
        json(&["run", "--model", "induction-2l", "--text", "one two three one two", "--bos", "off"]);
    assert_ne!(without["ids"][0], 0);
}

#[test]
fn a_script_holds_the_ids_the_edits_and_the_numbers_of_the_run() {
    let folder = folder("script", None);
    let model = text(&folder);
    let edits = r#"[{"kind":"zero","heads":["L0H1"]},{"kind":"mean","resid_pre":[1],"positions":[2],"over":[{"text":"t1 t2"}]},
        {"kind":"knockout","heads":["L1H0"],"edges":[[2,0]]},{"kind":"project_out","mlp_out":[0],"direction":[1,0,0,0,0,0,0,0.5]},
        {"kind":"project_out","resid_pre":[1],"direction":{"unembedding_of":{"text":"t7"}}}]"#;
    let run = json(&["run", "--model", model, "--text", "t3 t5 t3", "--top", "1"]);
    for library in ["transformer_lens", "nnsight"] {
        let arguments =
            ["--model", model, "--text", "t3 t5 t3", "--interventions", edits, "--library", library];
        let script = printed(&[["script"].as_slice(), &arguments].concat());
        let logit = run["logits_top"][0]["logit"].as_f64().expect("a logit") as f32;
        let expected = [
            "IDS = [3, 5, 3]".to_owned(),
            format!(", {logit}, "),
            "REPO = None".to_owned(),
            "z[0, :, 1] = 0.0".to_owned(),
            "x[0, [2]] = mean_2[\"blocks.1.hook_resid_pre\"]".to_owned(),
            "scores[0, 0, [2], [0]] = float(\"-inf\")".to_owned(),
            "project_out(x[0, :], torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5])".to_owned(),
            "EXPECTED_EDITED = [".to_owned(),
            [
                "model.unembed.weight[7] * model.ln_final.weight",
                "model.lm_head.weight[7] * model.model.norm.weight",
            ][usize::from(library == "nnsight")]
            .to_owned(),
        ];
        for text in expected {
            assert!(script.contains(&text), "{library} lacks {text}:\n{script}");
        }
        assert!(!script.contains("#: "), "no mark of the frame is left");
        assert!(python_compiles(&script), "{library}:\n{script}");
    }
    let script =
        |more: &[&str]| complaint(&[["script", "--model", model, "--ids", "1,2"].as_slice(), more].concat());
    let told = script(&["--library", "jax"]);
    assert!(told.contains("choose one of transformer_lens, nnsight"), "{told}");
    let told = script(&["--library", "nnsight", "--remote"]);
    assert!(told.contains("repository on the Hugging Face hub"), "{told}");
    let told = script(&["--library", "transformer_lens", "--remote", "--repo", "a/b"]);
    assert!(told.contains("runs locally"), "{told}");
    let told = script(&["--library", "nnsight", "--interventions", r#"[{"kind":"zero","heads":["L7H0"]}]"#]);
    assert!(told.contains("does not exist"), "{told}");
}

#[test]
fn a_script_loads_the_files_of_a_bundled_model() {
    let of = |model: &str, library: &str, more: &[&str]| {
        printed(
            &[["script", "--model", model, "--ids", "1,2", "--library", library].as_slice(), more].concat(),
        )
    };
    let files = ["--files", "https://example.org/models/induction-2l"];
    let one_neuron = "from_pretrained(source, intermediate_size=1)";
    for library in ["transformer_lens", "nnsight"] {
        let script = of("induction-2l", library, &files);
        assert!(script.contains("FILES = \"https://example.org/models/induction-2l\""), "{script}");
        assert!(script.contains("weights = weights or fetched(own_folder.name)"), "{script}");
        assert!(script.contains(one_neuron), "an attention-only model has MLPs that add nothing: {script}");
        assert!(python_compiles(&script), "{library}:\n{script}");
        let script = of("successor-2l", library, &[]);
        assert!(script.contains("FILES = None") && !script.contains("fetched("), "{script}");
        assert!(!script.contains(one_neuron), "this one has MLPs: {script}");
        assert!(python_compiles(&script), "{library}:\n{script}");
    }
    let remote = ["--library", "nnsight", "--remote", "--repo", "a/b"];
    let told = complaint(&[["script", "--model", "induction-2l", "--ids", "1"].as_slice(), &remote].concat());
    assert!(told.contains("attention only") && told.contains("remote"), "{told}");
}

#[test]
fn a_reader_that_is_gone_is_no_failure_and_a_full_disk_is_one() {
    let folder = folder("pipe", None);
    let model = ["--model", text(&folder)];
    let of_model = |more: &[&'static str]| [more, &model].concat();
    let calls = [
        vec!["--help"],
        vec!["--version"],
        vec!["run", "--help"],
        vec!["detectors"],
        of_model(&["run", "--ids", "1,2"]),
        of_model(&["detect", "--detector", "induction"]),
        of_model(&["script", "--ids", "1,2", "--library", "nnsight"]),
    ];
    for arguments in calls {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = headlight_into(writer, &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{arguments:?}: {} {told}", output.status);
    }
    #[cfg(target_os = "linux")]
    for arguments in [["--help"], ["detectors"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let output = headlight_into(full, &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} into a full disk");
        assert!(told.contains("cannot be written") && told.lines().count() == 1, "{told}");
    }
}

/// What a call that must succeed prints, as text.
fn printed(arguments: &[&str]) -> String {
    let output = headlight_tests::cli::headlight(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Whether Python reads it; where there is no Python, nobody can tell.
fn python_compiles(script: &str) -> bool {
    let check = "import ast, sys; ast.parse(sys.stdin.read())";
    let child = std::process::Command::new("python3")
        .args(["-c", check])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return true };
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, script.as_bytes()).expect("Python reads");
    drop(stdin);
    child.wait().is_ok_and(|status| status.success())
}
