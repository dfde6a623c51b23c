//! A model's way from bytes into the engine.

use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::Engine;
use crate::backend::Device;
use crate::error::Error;
use crate::forward::Upload;
use crate::model::folder::FolderCheckpoint;
use crate::model::gguf::GgufCheckpoint;
use crate::model::{Checkpoint, ModelConfig};
use crate::report::ModelInfo;
use crate::tokenizer::Tokenizer;

/// A model on its way from bytes into the engine.
pub struct Loading {
    checkpoint: Box<dyn Checkpoint>,
    tokenizer: Tokenizer,
    info: ModelInfo,
    /// Where the weights go, the devices after each other.
    uploads: Vec<(Device, Upload<Device>)>,
    n_tensors: usize,
}

impl Loading {
    /// Opens a GGUF file: header, tokenizer and the presence of every tensor are checked here. `name` is shown
    /// when the file names itself nowhere.
    pub fn from_gguf(bytes: Vec<u8>, name: &str) -> Result<Self, Error> {
        let checkpoint = GgufCheckpoint::open(bytes)?;
        let tokenizer = Tokenizer::from_gguf(&checkpoint.metadata(), checkpoint.config().d_vocab)?;
        let sha256 = sha256_hex([checkpoint.bytes()]);
        Ok(Self::new(Box::new(checkpoint), tokenizer, sha256, name))
    }

    /// Opens a Hugging Face folder's files: `config.json`, `tokenizer.json` and the safetensors shards.
    pub fn from_folder(
        config_json: &[u8],
        tokenizer_json: &[u8],
        shards: Vec<Vec<u8>>,
        name: &str,
    ) -> Result<Self, Error> {
        let checkpoint = FolderCheckpoint::open(config_json, shards)?;
        let tokenizer =
            Tokenizer::from_json(tokenizer_json, checkpoint.bos_id(), checkpoint.config().d_vocab)?;
        let sha256 = sha256_hex(checkpoint.shards().iter().map(Vec::as_slice));
        Ok(Self::new(Box::new(checkpoint), tokenizer, sha256, name))
    }

    fn new(checkpoint: Box<dyn Checkpoint>, tokenizer: Tokenizer, sha256: String, name: &str) -> Self {
        let config = checkpoint.config();
        let info = model_info(config, &tokenizer, sha256, name);
        let n_tensors = config.tensors().len();
        Self { checkpoint, tokenizer, info, uploads: Vec::new(), n_tensors }.onto(vec![Device::default()])
    }

    /// Where the weights are to go: the CPU, unless this says otherwise before the first step.
    pub fn onto(mut self, devices: Vec<Device>) -> Self {
        let upload = |device| (device, Upload::new(self.checkpoint.config()));
        self.uploads = devices.into_iter().map(upload).collect();
        self
    }

    /// What is being loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Tensors taken.
    pub fn n_done(&self) -> usize {
        self.uploads.iter().map(|(_, upload)| upload.n_done()).sum()
    }

    /// Tensors in all.
    pub fn n_total(&self) -> usize {
        self.n_tensors * self.uploads.len()
    }

    /// Takes one tensor; true when none was left.
    pub fn step(&mut self) -> Result<bool, Error> {
        for (device, upload) in &mut self.uploads {
            if !upload.step(device, self.checkpoint.as_ref())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes what is left and gives the engine of the first device.
    pub fn finish(self) -> Result<Engine, Error> {
        Ok(self.finish_all()?.remove(0))
    }

    /// Takes what is left and gives an engine for each device; the file's bytes are dropped.
    pub fn finish_all(mut self) -> Result<Vec<Engine>, Error> {
        while !self.step()? {}
        let tokenizer = Rc::new(self.tokenizer);
        let engine = |(backend, upload): (Device, Upload<Device>)| Engine {
            backend,
            model: Rc::new(upload.finish(self.checkpoint.config().clone())),
            tokenizer: Rc::clone(&tokenizer),
            info: self.info.clone(),
        };
        Ok(self.uploads.into_iter().map(engine).collect())
    }
}

fn sha256_hex<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hex(&hash.finalize())
}

/// Lengths keep two vocabularies apart that read alike when written one token after another.
fn sha256_of_vocabulary(tokenizer: &Tokenizer) -> String {
    let mut hash = Sha256::new();
    for piece in tokenizer.vocabulary() {
        hash.update((piece.len() as u32).to_le_bytes());
        hash.update(piece);
    }
    hex(&hash.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn model_info(config: &ModelConfig, tokenizer: &Tokenizer, sha256: String, name: &str) -> ModelInfo {
    ModelInfo {
        name: config.name.clone().unwrap_or_else(|| name.to_owned()),
        family: config.family.clone(),
        sha256,
        tokenizer_sha256: sha256_of_vocabulary(tokenizer),
        n_layers: config.n_layers,
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        d_model: config.d_model,
        d_head: config.d_head,
        d_mlp: config.d_mlp,
        d_vocab: config.d_vocab,
        n_ctx: config.n_ctx,
        bos_id: tokenizer.bos_id(),
        adds_bos: tokenizer.adds_bos(),
        n_params: config.n_params(),
    }
}
