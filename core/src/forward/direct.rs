//! Direct effects: what edits do when everything after them stays as it was, so that only their own path through the
//! residual stream to the unembedding is left. Later heads cannot compensate here, which they may in the whole run.

use super::layer::LayerStep;
use super::{BaseRun, LoadedModel};
use crate::backend::Backend;
use crate::hooks::{Edits, Entry, PlanError, Site, Stage};

/// The residual stream leaving the last layer, `[pos, d_model]`, with each edited component's own output changed and every
/// other component's as in the kept run.
pub fn direct_resid<B: Backend>(
    backend: &B,
    model: &LoadedModel<B>,
    base: &BaseRun<B>,
    edits: &Edits,
) -> Result<B::Buffer, PlanError> {
    let config = &model.config;
    edits.check(config, base.ids().len())?;
    let mut resid = base.resid_final.clone();
    let mut add_change = |edited: &B::Buffer, before: &B::Buffer| {
        resid = backend.add(&resid, &backend.subtract(edited, before));
    };
    // What a component writes is computed from the stream as it was, so edits of the stream itself count apart.
    let mut of_components = edits.clone();
    of_components.interventions.iter_mut().for_each(|intervention| intervention.sites.resid_pre.clear());
    for (layer, block) in model.blocks.iter().enumerate() {
        let sites: Vec<Site> = edits.in_layer(config, layer).into_iter().map(|(_, _, site)| site).collect();
        let step = LayerStep { backend, model, layer };
        let start = |edits: &Edits| {
            let entry = Entry { layer, stage: Stage::ResidPre };
            base.pass(backend, model, vec![edits.clone()], entry, 0)
        };
        if sites.iter().any(|site| matches!(site, Site::ResidPre(_))) {
            let mut pass = start(edits);
            step.edit_resid(&mut pass);
            add_change(&pass.resid, &base.layers[layer].resid_pre);
        }
        if sites.iter().any(|site| matches!(site, Site::Head(_) | Site::AttnOut(_))) {
            let mut pass = start(&of_components);
            step.attention(&mut pass, block);
            add_change(&pass.resid, base.resid_mid(layer));
        }
        if let Some(mlp) = &block.mlp
            && sites.iter().any(|site| matches!(site, Site::MlpOut(_)))
        {
            let mut pass = start(&of_components);
            pass.resid = base.resid_mid(layer).clone();
            step.mlp(&mut pass, mlp);
            add_change(&pass.resid, base.resid_post(layer));
        }
    }
    Ok(resid)
}
