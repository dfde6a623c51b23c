//! The user's own target pattern: offsets, named targets or single cells.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::attention::{AttentionWork, Reading};
use super::doc::Doc;
use super::target::AttentionTarget;
use super::{Ask, BlockDefaults, BlockParams, DetectError, Detector, Work};
use crate::hooks::TargetKeys;
use crate::ids::TokenId;

pub(super) const DETECTOR: Detector = Detector {
    doc: Doc {
        id: "custom",
        version: 1,
        title: "Your own pattern",
        looks_for: "Attention on the cells that you name.",
        why_it_matters: "Most heads have no name yet.",
        score: "Mean over the queries that have a target cell of the attention summed over their target cells. 0 to 1. \
                Parameters: offsets (such as [-1, -2]), targets (induction, previous_token, duplicate_token, first_token, \
                current_token), cells (pairs [query, key]); a cell named twice counts once.",
        stimulus: "Your sequences; without them 50 distinct random tokens, repeated twice, in 4 draws.",
        source: "The targeted mass of the other detectors, on a target of your own",
        known_confusions: "A pattern that covers many cells scores high for every head: compare with the share of cells \
                           that it covers.",
        threshold: None,
        weights_only: false,
    },
    plan,
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    offsets: Vec<i64>,
    targets: Vec<AttentionTarget>,
    cells: Vec<(usize, usize)>,
}

fn plan(ask: &Ask<'_>) -> Result<Work, DetectError> {
    let params: Params = ask.params()?;
    if params.offsets.is_empty() && params.targets.is_empty() && params.cells.is_empty() {
        return Err(DetectError::Params(
            "name offsets, targets or cells, such as {\"offsets\": [-1]}".to_owned(),
        ));
    }
    if let Some(offset) = params.offsets.iter().find(|&&offset| offset > 0) {
        return Err(DetectError::Params(format!(
            "offset {offset} looks ahead, which attention cannot; use 0 or less"
        )));
    }
    if let Some((query, key)) = params.cells.iter().find(|(query, key)| key > query) {
        return Err(DetectError::Params(format!(
            "cell [{query}, {key}] looks ahead, which attention cannot; the key comes second and is at most the query"
        )));
    }
    let stimulus = ask.blocks(BlockDefaults { lengths: (50, 50), n_repeats: 2 }, BlockParams::default())?;
    let work = AttentionWork::new(stimulus, |ids| Reading::TargetedMass(keys(&params, ids)));
    work.check("is too short for any cell of this pattern; use a longer text")?;
    Ok(Work::Attention(work))
}

fn keys(params: &Params, ids: &[TokenId]) -> TargetKeys {
    let mut rows = vec![BTreeSet::new(); ids.len()];
    for target in &params.targets {
        for (row, keys) in rows.iter_mut().zip(target.keys(ids).0) {
            row.extend(keys);
        }
    }
    for (query, row) in rows.iter_mut().enumerate() {
        row.extend(params.offsets.iter().filter_map(|&offset| query.checked_add_signed(offset as isize)));
    }
    for &(query, key) in &params.cells {
        if let Some(row) = rows.get_mut(query) {
            row.insert(key);
        }
    }
    TargetKeys(rows.into_iter().map(|row| row.into_iter().collect()).collect())
}
