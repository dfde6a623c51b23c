//! A continuation with edits in force, token by token.

use super::{Engine, Job};
use crate::backend::Device;
use crate::decode::{Decode, Sampling, StopRules};
use crate::error::Error;
use crate::forward::{Donors, KvCache};
use crate::hooks::PlanError;
use crate::ids::TokenId;
use crate::report::{GenerateReport, GenerateRequest};

/// A continuation under way.
pub struct GenerateTask {
    ids: Vec<TokenId>,
    rules: StopRules,
    sampling: Option<Sampling>,
    state: State,
}

enum State {
    /// Other runs, whose activations an edit reads; taken when they are made.
    Donors(Option<Donors<Device>>),
    Decode(Decode<Device>),
}

impl Engine {
    /// Starts a continuation; everything is checked before any work.
    pub fn start_generate(&self, request: &GenerateRequest) -> Result<GenerateTask, Error> {
        let ids = self.prompt_tokens(&request.prompt, request.bos)?.ids;
        let is_sane = (0.0..=100.0).contains(&request.temperature);
        if !is_sane {
            let value = request.temperature.to_string();
            return Err(PlanError::OutOfRange { name: "temperature", value, range: "0 to 100" }.into());
        }
        let edits = self.resolve(&request.interventions, request.bos)?.into();
        let donors = Donors::plan(&self.model.config, &ids, edits)?;
        let sampling = (request.temperature > 0.0)
            .then_some(Sampling { temperature: request.temperature, seed: request.seed });
        let rules = StopRules { max_new_tokens: request.max_new_tokens, stop_ids: request.stop_ids.clone() };
        Ok(GenerateTask { ids, rules, sampling, state: State::Donors(Some(donors)) })
    }
}

impl GenerateTask {
    fn generated(&self) -> Vec<TokenId> {
        match &self.state {
            State::Donors(_) => Vec::new(),
            State::Decode(decode) => decode.generated().iter().map(|token| token.id).collect(),
        }
    }
}

impl Job for GenerateTask {
    type Report = GenerateReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        let (backend, model) = (&engine.backend, &engine.model);
        match &mut self.state {
            State::Donors(donors) => {
                if let Some(making) = donors.as_mut()
                    && making.step(backend, model).await?
                    && let Some(made) = donors.take()
                {
                    let (ids, rules) = (self.ids.clone(), self.rules.clone());
                    let edits = made.finish();
                    let cache = KvCache::default();
                    self.state = State::Decode(Decode::with_edits(cache, ids, rules, edits, self.sampling));
                }
                Ok(false)
            }
            State::Decode(decode) => Ok(decode.step(backend, model).await?),
        }
    }

    fn progress(&self) -> (usize, usize) {
        (self.generated().len(), self.rules.max_new_tokens)
    }

    fn text(&self, engine: &Engine) -> Option<String> {
        Some(engine.decoded(&self.generated()))
    }

    async fn finish(self, engine: &Engine) -> Result<GenerateReport, Error> {
        let ids = self.generated();
        if let State::Decode(decode) = &self.state
            && decode.generated().iter().any(|token| !token.logit.is_finite())
        {
            return Err(Error::NotFinite);
        }
        Ok(GenerateReport {
            tokens: ids.iter().map(|&id| engine.tokenizer.spelling(id).text).collect(),
            text: engine.decoded(&ids),
            prompt_ids: self.ids,
            ids,
            provenance: engine.provenance(),
        })
    }
}
