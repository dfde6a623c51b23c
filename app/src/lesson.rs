//! Assignments: a title, a text, questions, and what a student cannot change. Plain data in a [`Link`](crate::link::Link);
//! answers become files here and go nowhere by themselves.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Longest title, letters.
const MAX_TITLE: usize = 200;
/// Longest text, letters.
const MAX_TEXT: usize = 8000;
/// Most questions.
const MAX_QUESTIONS: usize = 30;
/// Longest question or choice, letters.
const MAX_ASK: usize = 1000;
/// Most choices of a question.
const MAX_CHOICES: usize = 12;
/// Longest answer that is kept, letters.
pub const MAX_ANSWER: usize = 20_000;

/// An assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(default, deny_unknown_fields)]
pub struct Lesson {
    /// Its title.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What is to be done, in paragraphs of plain text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
    /// What students cannot change.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub lock: BTreeSet<Lock>,
}

/// A question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The question.
    pub ask: String,
    /// How it is answered.
    #[serde(default)]
    pub kind: AnswerKind,
    /// Answers to choose from, of a choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// In words.
    #[default]
    Text,
    /// By a click on a head in the map.
    Head,
    /// By one of the choices.
    Choice,
}

impl AnswerKind {
    /// Its name in links and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Head => "head",
            Self::Choice => "choice",
        }
    }
}

/// What an assignment can hold fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// The model.
    Model,
    /// The prompt and its BOS.
    Prompt,
}

impl Lesson {
    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        let is_long = |text: &str, most: usize| text.chars().count() > most;
        if is_long(&self.title, MAX_TITLE) {
            return Err(format!("an assignment's title has at most {MAX_TITLE} letters"));
        }
        if is_long(&self.text, MAX_TEXT) {
            return Err(format!("an assignment's text has at most {MAX_TEXT} letters"));
        }
        if self.questions.len() > MAX_QUESTIONS {
            return Err(format!("an assignment asks at most {MAX_QUESTIONS} questions"));
        }
        for question in &self.questions {
            if question.choices.len() > MAX_CHOICES {
                return Err(format!("a question has at most {MAX_CHOICES} choices"));
            }
            if std::iter::once(&question.ask).chain(&question.choices).any(|text| is_long(text, MAX_ASK)) {
                return Err(format!("a question or choice has at most {MAX_ASK} letters"));
            }
            if (question.kind == AnswerKind::Choice) == question.choices.is_empty() {
                return Err("questions of kind “choice” have choices, and no others do".to_owned());
            }
        }
        Ok(())
    }

    /// The text's paragraphs.
    pub fn paragraphs(&self) -> Vec<String> {
        paragraphs(&self.text)
    }
}

fn paragraphs(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    let pieces = text.split("\n\n").map(str::trim).filter(|piece| !piece.is_empty());
    pieces.map(str::to_owned).collect()
}

/// A student's answers with what makes them checkable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct AnswerSheet {
    /// The assignment's title.
    pub title: String,
    /// Every question with its answer, empty where there is none.
    pub answers: Vec<Answered>,
    /// Address of the view when the answers were written out.
    pub link: String,
    /// When that was, ISO 8601.
    pub time: String,
    /// The model's id.
    pub model: String,
    /// sha256 of its weights.
    pub model_sha256: String,
    /// Version of the page.
    pub build: String,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Answered {
    /// The question.
    pub ask: String,
    /// How it is answered.
    pub kind: AnswerKind,
    /// The answer.
    pub answer: String,
}

impl AnswerSheet {
    /// As JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a sheet is plain data")
    }

    /// As CSV: one question a line, with a header.
    pub fn csv(&self) -> String {
        let mut text = "title,number,question,kind,answer,link,time,model,model_sha256,build\r\n".to_owned();
        for (index, answered) in self.answers.iter().enumerate() {
            let number = (index + 1).to_string();
            let cells = [
                &self.title,
                &number,
                &answered.ask,
                answered.kind.name(),
                &answered.answer,
                &self.link,
                &self.time,
                &self.model,
                &self.model_sha256,
                &self.build,
            ];
            text.push_str(&cells.map(cell).join(","));
            text.push_str("\r\n");
        }
        text
    }
}

/// A cell of a CSV file: quoted where it must be, and never a formula to a spreadsheet.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{guard}{}\"", text.replace('"', "\"\"")),
        false => format!("{guard}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept() {
        let fine = Lesson { title: "A".repeat(MAX_TITLE), ..Lesson::default() };
        assert_eq!(fine.check(), Ok(()));
        let question = Question { ask: "?".to_owned(), ..Question::default() };
        let bad = [
            Lesson { title: "A".repeat(MAX_TITLE + 1), ..Lesson::default() },
            Lesson { text: "ä".repeat(MAX_TEXT + 1), ..Lesson::default() },
            Lesson { questions: vec![question.clone(); MAX_QUESTIONS + 1], ..Lesson::default() },
            Lesson {
                questions: vec![Question { kind: AnswerKind::Choice, ..question.clone() }],
                ..Lesson::default()
            },
            Lesson {
                questions: vec![Question { choices: vec!["a".to_owned()], ..question }],
                ..Lesson::default()
            },
        ];
        for lesson in bad {
            assert!(lesson.check().is_err());
        }
    }

    #[test]
    fn paragraphs_are_split_at_empty_lines() {
        assert_eq!(paragraphs("a\nb\r\n\r\nc\n\n\n\n d "), ["a\nb", "c", "d"]);
    }

    #[test]
    fn a_sheet_is_json_and_csv_that_no_spreadsheet_computes() {
        let sheet = AnswerSheet {
            title: "Heads, \"two\"".to_owned(),
            answers: vec![
                Answered { ask: "Which?".to_owned(), kind: AnswerKind::Head, answer: "L1H0".to_owned() },
                Answered {
                    ask: "Why?".to_owned(),
                    kind: AnswerKind::Text,
                    answer: "=HYPERLINK(\"x\")\nsecond line".to_owned(),
                },
            ],
            link: "https://example.org/#1.abc".to_owned(),
            time: "2026-01-02T03:04:05.000Z".to_owned(),
            model: "induction-2l".to_owned(),
            model_sha256: "ab".repeat(32),
            build: "0.1.0".to_owned(),
        };
        let json: serde_json::Value = serde_json::from_str(&sheet.json()).expect("JSON");
        assert_eq!(json["answers"][0]["answer"], "L1H0");
        assert_eq!(json["answers"][1]["kind"], "text");
        let csv = sheet.csv();
        assert!(csv.contains("\"Heads, \"\"two\"\"\",1,Which?,head,L1H0,https://example.org/#1.abc"));
        assert!(csv.contains("\"'=HYPERLINK(\"\"x\"\")\nsecond line\""), "{csv}");
    }
}
