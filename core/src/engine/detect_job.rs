//! A detector at work on the engine's model.

use super::{Engine, Job};
use crate::backend::Device;
use crate::detect::{self, Ask, HeadTable};
use crate::error::Error;
use crate::report::{DetectProvenance, DetectReport, DetectRequest};

/// A detector at work.
pub struct DetectTask {
    doc: &'static detect::doc::Doc,
    request: DetectRequest,
    backend: Device,
    task: detect::Task<Device>,
}

impl Engine {
    /// Plans a detector's work; everything is checked before any of it is done.
    pub fn start_detect(&self, request: &DetectRequest) -> Result<DetectTask, Error> {
        let detector = detect::find(&request.detector)?;
        let ask = Ask {
            config: &self.model.config,
            tokenizer: &self.tokenizer,
            bos: self.bos(request.bos)?,
            seed: request.seed,
            sequences: request.sequences.clone(),
            params: request.params.clone(),
        };
        let task = detect::Task::plan(detector, &ask, request.draws.clone())?;
        let backend = self.backend.with_precision(request.precision);
        Ok(DetectTask { doc: &detector.doc, request: request.clone(), backend, task })
    }

    /// Runs a detector to its end.
    pub fn detect(&self, request: &DetectRequest) -> Result<DetectReport, Error> {
        self.start_detect(request)?.complete(self)
    }
}

impl Job for DetectTask {
    type Report = DetectReport;

    async fn step(&mut self, engine: &Engine) -> Result<bool, Error> {
        self.task.step(&engine.ground_on(&self.backend)).await.map_err(|error| engine.told(error))
    }

    fn progress(&self) -> (usize, usize) {
        self.task.progress()
    }

    fn partial(&self) -> HeadTable {
        self.task.partial()
    }

    async fn finish(self, engine: &Engine) -> Result<DetectReport, Error> {
        let (findings, of_draws) = self.task.finish(&engine.tokenizer);
        if findings.scores.iter().flatten().any(|score| !score.is_finite()) {
            return Err(Error::NotFinite);
        }
        let of_draws = self.request.draws.as_ref().map(|_| of_draws);
        let provenance = DetectProvenance { run: engine.provenance_on(&self.backend), request: self.request };
        Ok(DetectReport { of_draws, ..DetectReport::new(self.doc, findings, provenance) })
    }
}
