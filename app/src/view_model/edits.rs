//! Edits as the page writes them: where they act, how strong they are, and what they are called.

use headlight_core::hooks::{ActivationDirection, Edit, Intervention, Prompt};
use headlight_core::ids::HeadId;

use crate::protocol::EditWhere;

/// The number of an edit that a slider moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// Its name.
    pub name: &'static str,
    /// As it is.
    pub value: f32,
    /// Least and most.
    pub range: (f32, f32),
    /// The setting at which nothing changes.
    pub neutral: f32,
}

/// The number of an edit that a slider moves, if it has one.
pub fn strength_of(edit: &Edit) -> Option<Strength> {
    let of = |name, value, range, neutral| Some(Strength { name, value, range, neutral });
    match *edit {
        Edit::Scale { alpha } => of("alpha", alpha, (-2.0, 3.0), 1.0),
        Edit::InterpolatePattern { strength, .. } => of("strength", strength, (0.0, 1.0), 0.0),
        Edit::PatternTemperature { tau } => of("temperature", tau, (0.1, 5.0), 1.0),
        Edit::ProjectOut { strength, .. } => of("strength", strength, (-1.0, 2.0), 0.0),
        _ => None,
    }
}

/// The edit at another setting of its slider.
pub fn with_strength(edit: &Edit, value: f32) -> Edit {
    match edit {
        Edit::Scale { .. } => Edit::Scale { alpha: value },
        Edit::InterpolatePattern { towards, .. } => {
            Edit::InterpolatePattern { towards: *towards, strength: value }
        }
        Edit::PatternTemperature { .. } => Edit::PatternTemperature { tau: value },
        Edit::ProjectOut { direction, .. } => {
            Edit::ProjectOut { direction: direction.clone(), strength: value }
        }
        other => other.clone(),
    }
}

/// What an edit that no menu offers does, in words.
pub fn edit_text(edit: &Edit) -> String {
    match edit {
        Edit::Patch { from: None, .. } => "patched from the clean run".to_owned(),
        Edit::Patch { .. } => "patched from another prompt".to_owned(),
        Edit::Knockout { edges } => {
            let edges: Vec<String> = edges.iter().map(|(query, key)| format!("{query}→{key}")).collect();
            format!("attention cut {}", edges.join(", "))
        }
        Edit::ProjectOut { direction: ActivationDirection::OfToken { unembedding_of }, .. } => {
            match unembedding_of {
                Prompt::Text(text) => format!("direction of {text:?} projected out"),
                Prompt::Ids(ids) => format!("direction of token {ids:?} projected out"),
            }
        }
        Edit::ProjectOut { .. } => "a direction projected out".to_owned(),
        Edit::Mean { over: Some(prompts) } => format!("mean over {} prompts", prompts.len()),
        Edit::FreezePattern { from: Some(_) } => "pattern of another prompt".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The places of an edit other than heads, such as `MLP 3`.
pub fn layer_texts(intervention: &Intervention) -> Vec<String> {
    let sites = &intervention.sites;
    let named = [
        ("layer", &sites.layers),
        ("attention", &sites.attn_out),
        ("MLP", &sites.mlp_out),
        ("stream before layer", &sites.resid_pre),
    ];
    let texts = named.into_iter().flat_map(|(name, layers)| {
        layers.iter().map(move |layer| format!("{name} {layer}")).collect::<Vec<_>>()
    });
    texts.collect()
}

/// Where in the prompt, in words.
pub fn where_text(at: EditWhere) -> &'static str {
    match at {
        EditWhere::Everywhere => "all positions",
        EditWhere::NotFirst => "all but the first",
        EditWhere::Last => "the last position",
    }
}

/// Pairs of positions such as `12>5, 12>6`, query first.
pub fn parse_edges(text: &str) -> Option<Vec<(usize, usize)>> {
    let pair = |part: &str| {
        let (query, key) = part.split_once(['>', '→'])?;
        Some((query.trim().parse().ok()?, key.trim().parse().ok()?))
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let edges: Option<Vec<(usize, usize)>> = parts.map(pair).collect();
    edges.filter(|edges| !edges.is_empty())
}

/// Heads in a line, those beyond `n` counted.
pub fn heads_text(heads: &[HeadId], n: usize) -> String {
    let mut texts: Vec<String> = heads.iter().take(n).map(ToString::to_string).collect();
    if heads.len() > n {
        texts.push(format!("and {} more", heads.len() - n));
    }
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::edits::{kind_of, offered};

    #[test]
    fn every_offered_edit_is_found_again_at_any_strength() {
        for (index, (_, edit)) in offered().into_iter().enumerate() {
            assert_eq!(kind_of(&edit), Some(index));
            if let Some(strength) = strength_of(&edit) {
                let moved = with_strength(&edit, strength.range.0);
                assert_eq!(kind_of(&moved), Some(index));
                assert_eq!(strength_of(&moved).map(|strength| strength.value), Some(strength.range.0));
            }
        }
        assert_eq!(kind_of(&Edit::Knockout { edges: Vec::new() }), None);
    }

    #[test]
    fn edges_are_read_strictly() {
        assert_eq!(parse_edges("12>5, 3 → 1,"), Some(vec![(12, 5), (3, 1)]));
        for wrong in ["", "12", "12>", "a>b", "1>2 3>4"] {
            assert_eq!(parse_edges(wrong), None, "{wrong}");
        }
    }
}
