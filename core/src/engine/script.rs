//! The script of a run: its prompt and edits as token ids, and the numbers that it must find again.

use super::{Engine, RunOutcome, Want};
use crate::error::Error;
use crate::metrics::kl_nats;
use crate::report::RunRequest;
use crate::script::{Reproduced, ScriptRequest, script};

/// Next tokens that a script compares.
const N_COMPARED: usize = 10;

impl Engine {
    /// Python that reproduces the request's run, clean and with its edits.
    pub fn script(&self, request: &ScriptRequest) -> Result<String, Error> {
        let run = |request: &RunRequest| self.start(request, Want::default())?.complete(self);
        let [clean, edited] = request.runs();
        self.script_of(request, &run(&clean)?, &run(&edited)?)
    }

    /// The same from its two runs.
    pub fn script_of(
        &self,
        request: &ScriptRequest,
        clean: &RunOutcome,
        edited: &RunOutcome,
    ) -> Result<String, Error> {
        let of = Reproduced {
            info: &self.info,
            config: &self.model.config,
            interventions: &self.resolve(&request.interventions, request.bos)?,
            clean: &clean.report,
            edited: &edited.report,
            kl_nats: kl_nats(&clean.logits, &edited.logits),
        };
        Ok(script(request, of)?)
    }
}

impl ScriptRequest {
    /// The runs that it reproduces: without edits, and with them.
    pub fn runs(&self) -> [RunRequest; 2] {
        let run = |interventions| RunRequest {
            prompt: self.prompt.clone(),
            bos: self.bos,
            top: N_COMPARED,
            interventions,
            watch: Vec::new(),
        };
        [run(Vec::new()), run(self.interventions.clone())]
    }
}
