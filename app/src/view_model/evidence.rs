//! What stands behind a detector's scores, read from a report's evidence: the losses of `induction`, the classes of `successor`.
//! Prompts of `retrieval` are [`super::retrieval`]'s.

use headlight_core::report::DetectReport;
use serde::Deserialize;
use serde_json::Value;

/// Mean loss on the two copies of a repeated sequence, nats a token.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct CopyLosses {
    /// On the first copy, which is random.
    #[serde(rename = "first_copy_nll_nats")]
    pub first_nats: f32,
    /// On the second, which repeats it.
    #[serde(rename = "second_copy_nll_nats")]
    pub second_nats: f32,
}

/// One class of `successor`, such as the days of the week.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ClassEvidence {
    /// Its name.
    pub class: String,
    /// Pairs of an item and its successor.
    pub n: usize,
    /// Share of the pairs whose successor the head raises most, 0 to 1.
    pub score: f32,
    /// Share whose own item it raises most.
    pub copy_rate: f32,
    /// Share whose predecessor it raises most.
    pub predecessor_rate: f32,
    /// The pairs.
    pub rows: Vec<PairEvidence>,
}

/// One pair of a class.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PairEvidence {
    /// The item read.
    pub from: String,
    /// What the head raises most.
    pub argmax: String,
    /// Whether the successor is among what it raises most.
    pub hit: bool,
}

/// The losses on the two copies, of a detector that repeats sequences.
pub fn copy_losses(report: &DetectReport) -> Option<CopyLosses> {
    CopyLosses::deserialize(&report.evidence).ok()
}

/// The classes as the best head has them, of `successor`.
pub fn classes(report: &DetectReport) -> Option<Vec<ClassEvidence>> {
    let classes: &Value = report.evidence.get("best")?.get("classes")?;
    Vec::deserialize(classes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view_model::lens::tests::report;
    use serde_json::json;

    #[test]
    fn evidence_is_read_and_what_is_none_is_none() {
        let mut report = report("successor", vec![vec![0.1, 0.2]], Vec::new());
        assert_eq!((classes(&report), copy_losses(&report)), (None, None));
        report.evidence = json!({"best": {"classes": [{
            "class": "days", "n": 1, "score": 1.0, "copy_rate": 0, "predecessor_rate": 0.5, "head": "L0H1",
            "rows": [{"from": " Monday", "wanted": " Tuesday", "argmax": " Tuesday", "argmax_id": 7, "hit": true}],
        }]}});
        let classes = classes(&report).expect("the shape of a report");
        assert_eq!((classes[0].n, classes[0].predecessor_rate, classes[0].rows[0].hit), (1, 0.5, true));
        report.evidence = json!({"first_copy_nll_nats": 6.5, "second_copy_nll_nats": 0.25});
        assert_eq!(copy_losses(&report), Some(CopyLosses { first_nats: 6.5, second_nats: 0.25 }));
    }
}
