//! The edits' part of the state: what is changed in the model, and named sets of heads.

use std::collections::BTreeSet;

use headlight_core::hooks::{Edit, Intervention, PatternTarget, Sites};
use headlight_core::ids::HeadId;
use serde::{Deserialize, Serialize};

use super::{AppState, Task, lab, run};
use crate::protocol::{EditWhere, PlacedEdit};

/// Heads under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct HeadSet {
    /// The name.
    pub name: String,
    /// The heads.
    pub heads: BTreeSet<HeadId>,
}

/// What the user changes in the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Edits {
    /// In force, in order.
    pub list: Vec<PlacedEdit>,
    /// What the next head that is switched gets.
    pub next: Edit,
    /// Named sets of heads.
    pub sets: Vec<HeadSet>,
}

impl Default for Edits {
    fn default() -> Self {
        Self { list: Vec::new(), next: Edit::Zero {}, sets: Vec::new() }
    }
}

/// How the map marks a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditMark {
    /// Its z is zero.
    Off,
    /// Anything else.
    Edited,
}

/// What the user does to the edits.
#[derive(Clone, Debug, PartialEq)]
pub enum EditMsg {
    /// Gives a head the next edit, or takes every edit of its own away.
    Toggle(HeadId),
    /// Gives these heads the next edit.
    EditHeads(Vec<HeadId>),
    /// Adds an edit.
    Add(PlacedEdit),
    /// Another edit in place of this one.
    Change(usize, PlacedEdit),
    /// Takes an edit away.
    Remove(usize),
    /// Takes all edits away.
    Clear,
    /// What the next head gets.
    SetNext(Edit),
    /// Names the edited heads.
    SaveSet(String),
    /// Forgets a set.
    DropSet(usize),
}

/// The kinds of edit that the page offers for heads, each at a setting that shows.
pub fn offered() -> [(&'static str, Edit); 9] {
    let towards = |towards| Edit::InterpolatePattern { towards, strength: 1.0 };
    [
        ("off (zero)", Edit::Zero {}),
        ("mean", Edit::Mean { over: None }),
        ("scale", Edit::Scale { alpha: 0.5 }),
        ("attend evenly", towards(PatternTarget::Uniform)),
        ("attend to itself", towards(PatternTarget::Identity)),
        ("attend to the first", towards(PatternTarget::First)),
        ("attend to the one before", towards(PatternTarget::Previous)),
        ("temperature", Edit::PatternTemperature { tau: 2.0 }),
        ("freeze the pattern", Edit::FreezePattern { from: None }),
    ]
}

/// The place of an edit's kind among the [`offered`] ones.
pub fn kind_of(edit: &Edit) -> Option<usize> {
    offered().iter().position(|(_, offered)| match (offered, edit) {
        (Edit::InterpolatePattern { towards: a, .. }, Edit::InterpolatePattern { towards: b, .. }) => a == b,
        (Edit::Mean { over: None }, Edit::Mean { over }) => over.is_none(),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    })
}

impl Edits {
    /// Heads that any edit names.
    pub fn heads(&self) -> BTreeSet<HeadId> {
        self.list.iter().flat_map(|placed| placed.edit.sites.heads.iter().copied()).collect()
    }

    /// The edits in a prompt of `n_tokens`.
    pub fn resolved(&self, n_tokens: usize) -> Vec<Intervention> {
        self.list.iter().map(|placed| placed.resolve(n_tokens)).collect()
    }

    /// What is done to this head: nothing, switched off, or something else.
    pub fn mark(&self, head: HeadId) -> Option<EditMark> {
        let mut edits = self.list.iter().filter(|placed| placed.edit.sites.heads.contains(&head));
        let first = edits.next()?;
        let is_off = matches!(first.edit.edit, Edit::Zero {}) && edits.next().is_none();
        Some(if is_off { EditMark::Off } else { EditMark::Edited })
    }

    /// Whether an edit names this head.
    pub fn has(&self, head: HeadId) -> bool {
        self.list.iter().any(|placed| placed.edit.sites.heads.contains(&head))
    }

    /// Gives heads an edit at every position; those with the same edit stand together.
    fn edit_heads(&mut self, edit: Edit, heads: impl IntoIterator<Item = HeadId>) {
        let is_like = |known: &&mut PlacedEdit| {
            let of_heads = known.edit.sites.named_layers().next().is_none();
            known.edit.edit == edit && known.edit.positions.is_none() && of_heads
        };
        match self.list.iter_mut().find(is_like) {
            Some(known) => known.edit.sites.heads.extend(heads),
            None => {
                let edit = Intervention::of_heads(edit, heads);
                self.list.push(PlacedEdit { edit, at: EditWhere::Everywhere });
            }
        }
    }

    fn free(&mut self, head: HeadId) {
        for placed in &mut self.list {
            placed.edit.sites.heads.remove(&head);
        }
        self.list.retain(|placed| !placed.edit.sites.is_empty());
    }
}

/// Changes the edits and says what follows.
pub(super) fn update(state: &mut AppState, msg: EditMsg) -> Vec<Task> {
    let before = state.edits.list.clone();
    match msg {
        EditMsg::Toggle(head) if state.edits.has(head) => state.edits.free(head),
        EditMsg::Toggle(head) => give(state, vec![head]),
        EditMsg::EditHeads(heads) => give(state, heads),
        EditMsg::Add(edit) => state.edits.list.push(edit),
        EditMsg::Change(index, edit) => {
            if let Some(place) = state.edits.list.get_mut(index) {
                *place = edit;
            }
        }
        EditMsg::Remove(index) => {
            if index < state.edits.list.len() {
                state.edits.list.remove(index);
            }
        }
        EditMsg::Clear => state.edits.list.clear(),
        EditMsg::SetNext(edit) => state.edits.next = edit,
        EditMsg::SaveSet(name) => {
            let heads = state.edits.heads();
            add_set(state, HeadSet { name, heads });
            return lab::follow(state);
        }
        EditMsg::DropSet(index) => {
            if index < state.edits.sets.len() {
                state.edits.sets.remove(index);
            }
            return lab::follow(state);
        }
    }
    if state.edits.list == before { Vec::new() } else { run(state, 0) }
}

/// Gives heads of the model the next edit in place of those that they have.
fn give(state: &mut AppState, heads: Vec<HeadId>) {
    let heads: Vec<HeadId> = heads.into_iter().filter(|&head| state.has_head(head)).collect();
    heads.iter().for_each(|&head| state.edits.free(head));
    if !heads.is_empty() {
        let edit = state.edits.next.clone();
        state.edits.edit_heads(edit, heads);
    }
}

/// A set of the same name gives way.
fn add_set(state: &mut AppState, set: HeadSet) {
    if set.heads.is_empty() {
        return;
    }
    let name = match set.name.trim() {
        "" => format!("set {}", state.edits.sets.len() + 1),
        name => name.to_owned(),
    };
    state.edits.sets.retain(|known| known.name != name);
    state.edits.sets.push(HeadSet { name, heads: set.heads });
}

/// An edit of a part of a layer, everywhere in the prompt.
pub fn of_layer(edit: Edit, layer: usize, part: LayerPart) -> PlacedEdit {
    let layers = BTreeSet::from([layer]);
    let sites = match part {
        LayerPart::Both => Sites { layers, ..Sites::default() },
        LayerPart::Attention => Sites { attn_out: layers, ..Sites::default() },
        LayerPart::Mlp => Sites { mlp_out: layers, ..Sites::default() },
        LayerPart::Stream => Sites { resid_pre: layers, ..Sites::default() },
    };
    PlacedEdit { edit: Intervention { edit, sites, positions: None }, at: EditWhere::Everywhere }
}

/// Parts of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerPart {
    /// Attention and MLP.
    Both,
    /// Attention.
    Attention,
    /// MLP.
    Mlp,
    /// The residual stream that enters the layer.
    Stream,
}
