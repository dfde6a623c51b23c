//! Every accepted shape, and a sentence for everything else.

use super::*;

/// A metric's name and its numbers.
type Metric = (String, Vec<Vec<f32>>);

/// Two layers of two heads.
fn read2(text: &str) -> Result<Vec<Metric>, String> {
    let read = read("f", text, 2, 2).map_err(|error| error.to_string())?;
    Ok(read.into_iter().map(|imported| (imported.metric, imported.scores)).collect())
}

fn table() -> Vec<Vec<f32>> {
    vec![vec![0.5, 1.0], vec![-2.0, 0.25]]
}

#[test]
fn the_four_shapes_give_the_same_numbers() {
    let shapes = [
        (
            r#"{"detector": "prefix_matching", "scores": [[0.5, 1], [-2, 0.25]], "spread": null, "provenance": {}}"#,
            "prefix matching",
        ),
        (
            r#"{"metric": "kl", "effects": [[0.5, 1], [-2, 0.25]], "request": {"targets": "heads"}}"#,
            "effect, kl",
        ),
        (r#"{"model": "x", "layers": [0, 1], "my score": [[0.5, 1], [-2, 0.25]]}"#, "my score"),
        (
            r#"[{"layer": 0, "head": 0, "s": 0.5}, {"layer": 1, "head": 1, "s": 0.25}, {"layer": 0, "head": 1, "s": 1},
                {"layer": 1, "head": 0, "s": -2}, {"layer": 1, "head": "mlp", "s": 9}]"#,
            "s",
        ),
        (
            "\u{feff}Layer,Head,\"a, b\",rank\r\n0,0,0.5,1\r\n0,1,1,2\r\n1,0,-2,3\r\n1,1,2.5e-1,4\r\n\r\n",
            "a, b",
        ),
    ];
    for (text, metric) in shapes {
        assert_eq!(read2(text), Ok(vec![(metric.to_owned(), table())]), "{text}");
    }
    let two = read2(r#"{"a": [[1, 2], [3, 4]], "b": [[5, 6], [7, 8]]}"#).expect("two metrics");
    assert_eq!(two.len(), 2);
}

#[test]
fn bad_files_are_told_in_a_sentence_that_says_what_would_work() {
    let long = "x".repeat(MAX_BYTES + 1);
    let many: Vec<String> = (0..25).map(|i| format!("\"m{i}\": [[1, 2], [3, 4]]")).collect();
    let many = format!("{{{}}}", many.join(","));
    let cases = [
        (long.as_str(), "at most 8388608 are read"),
        ("", "neither JSON nor a CSV"),
        ("hello", "names no layer and head"),
        ("{\"a\": [[1, 2], [3", "neither JSON nor a CSV"),
        ("{\"a\": [[1, NaN], [3, 4]]}", "NaN or Infinity"),
        ("{\"a\": [[1, -Infinity], [3, 4]]}", "NaN or Infinity"),
        ("{\"a\": [[1, 1e999], [3, 4]]}", "NaN or Infinity"),
        ("{\"a\": [[1, 1e39], [3, 4]]}", "L0H1 of \"a\" is 1e+39"),
        ("{\"a\": [[1, \"2\"], [3, 4]]}", "L0H1 of \"a\" is \"2\"; every head needs a finite number"),
        ("{\"a\": [[1, null], [3, 4]]}", "L0H1 of \"a\" is null"),
        ("{\"a\": [[1, 2, 3], [3, 4, 5]]}", "2 rows of 3 numbers and the loaded model 2 layers of 2 heads"),
        ("{\"a\": [[1, 2]]}", "1 rows of 2 numbers"),
        ("{\"a\": 1, \"b\": \"x\"}", "no table of numbers"),
        ("{}", "no table of numbers"),
        ("[]", "no table of numbers"),
        ("[1, 2]", "row 1 names no head"),
        ("[{\"layer\": 0, \"head\": -1, \"s\": 1}]", "row 1 names no head"),
        ("[{\"layer\": 0, \"head\": 0, \"s\": 1}]", "L0H1 has no row"),
        ("[{\"layer\": 0, \"head\": 7, \"s\": 1}]", "\"L0H7\" has a row and the loaded model"),
        ("layer,head,s\n0,0,1\n0,0,2\n", "L0H0 has two rows"),
        ("layer,head,s\n0,0,inf\n0,1,1\n1,0,1\n1,1,1\n", "L0H0 of \"s\" is \"inf\""),
        ("layer,head,s\n0,0,=1+1\n0,1,1\n1,0,1\n1,1,1\n", "\"=1+1\""),
        ("layer,head,s\nzero,0,1\n", "row 1 names no head"),
        ("layer,head\n0,0\n0,1\n1,0\n1,1\n", "no table of numbers"),
        (r#"{"metric": "kl", "effects": [[0.5], [1]], "request": {"targets": "mlps"}}"#, "of MLPs"),
        (many.as_str(), "25 metrics"),
    ];
    for (text, told) in cases {
        let shown: String = text.chars().take(60).collect();
        let error = read2(text).expect_err(&shown);
        assert!(error.contains(told), "{shown}: {error}");
    }
}

#[test]
fn a_report_says_on_which_weights_it_was_measured() {
    let text = r#"{"detector": "d", "scores": [[1]], "provenance": {"model_sha256": "ab"}}"#;
    let imported = read("f", text, 1, 1).expect("a report");
    assert_eq!(imported[0].model_sha256.as_deref(), Some("ab"));
    assert!(!imported[0].is_effect);
}
