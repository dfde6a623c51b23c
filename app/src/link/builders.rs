//! The link builder for Python, `static/embed/headlight_link.py`: what it writes opens here, and what is written here it
//! reads. (The one for JavaScript is tested in the browser.)

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::*;

/// Runs a line of Python with the builder imported; gives what it prints.
fn python(line: &str, input: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../static/embed");
    let script =
        format!("import sys, json\nsys.dont_write_bytecode = True\nfrom headlight_link import *\n{line}");
    let mut child = Command::new("python3")
        .args(["-c", &script])
        .env("PYTHONPATH", folder)
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("python3 reads");
    let output = child.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "{line}");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

fn states() -> [Value; 3] {
    [
        json!({}),
        json!({"prompt": "Zwölf </script> \u{1f600}\n\"quoted\"", "head": "L1H0", "hide": ["plots"]}),
        json!({"edits": [{"edit": {"kind": "zero", "heads": ["L0H1"]}}], "lesson": {"title": "Look", "questions": [
            {"ask": "Which?", "kind": "head"}, {"ask": "Why?", "kind": "text"}], "lock": ["model"]}}),
    ]
}

#[test]
fn what_python_writes_opens() {
    for state in states() {
        let url = python("print(url_of('https://a.org/h/', json.load(sys.stdin)))", &state.to_string());
        let fragment = url.strip_prefix("https://a.org/h/").expect("the page's address");
        let link = Link::decode(fragment).expect("a link");
        assert_eq!(link.to_value(), state);
    }
    let url = python("print(url_of('https://a.org/', {}, {'embed': 1, 'map': 0}))", "");
    assert_eq!(url, "https://a.org/?embed=1&map=0");
}

#[test]
fn python_reads_what_is_written_here() {
    for state in states() {
        let link = Link::of_value(state.clone()).expect("a view");
        let url = format!("https://a.org/#{}", link.encode());
        let read = python("print(json.dumps(state_of(sys.stdin.read())))", &url);
        assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), state);
    }
}

#[test]
fn the_ready_lesson_is_one() {
    let text = include_str!("../../../static/lessons/predict-then-look.json");
    let link = Link::of_value(serde_json::from_str(text).expect("JSON")).expect("a view");
    assert_eq!(link.lesson.map(|lesson| lesson.questions.len()), Some(3));
}

#[test]
fn every_example_links_to_a_view() {
    let examples = [
        include_str!("../../../static/embed/examples/plain.html"),
        include_str!("../../../static/embed/examples/quarto.qmd"),
        include_str!("../../../static/embed/examples/jupyter-book.md"),
        include_str!("../../../static/embed/examples/mkdocs.md"),
        include_str!("../../../static/embed/examples/moodle.html"),
    ];
    for example in examples {
        let fragments: Vec<&str> =
            example.split("#1.").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(!fragments.is_empty());
        for fragment in fragments {
            let link = Link::decode(&format!("1.{fragment}"));
            assert!(link.is_ok_and(|link| link.head.is_some() || link.lesson.is_some()), "{fragment}");
        }
    }
}

#[test]
fn an_assignment_over_its_limits_is_refused() {
    let long = json!({"lesson": {"title": "x".repeat(5000)}});
    assert!(matches!(Link::of_value(long), Err(LinkError::Unreadable(_))));
    let unknown = json!({"lesson": {"html": "<b>"}});
    assert!(matches!(Link::of_value(unknown), Err(LinkError::Unreadable(_))));
}
