//! A model's way from bytes into the engine.

use sha2::{Digest, Sha256};

use super::Engine;
use crate::backend::cpu::Cpu;
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
    backend: Cpu,
    upload: Upload<Cpu>,
    n_total: usize,
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
        let (upload, n_total) = (Upload::new(config), config.tensors().len());
        Self { checkpoint, tokenizer, info, backend: Cpu, upload, n_total }
    }

    /// What is being loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Tensors taken.
    pub fn n_done(&self) -> usize {
        self.upload.n_done()
    }

    /// Tensors in all.
    pub fn n_total(&self) -> usize {
        self.n_total
    }

    /// Takes one tensor; true when none was left.
    pub fn step(&mut self) -> Result<bool, Error> {
        Ok(self.upload.step(&self.backend, self.checkpoint.as_ref())?)
    }

    /// Takes what is left and gives the engine; the file's bytes are dropped.
    pub fn finish(mut self) -> Result<Engine, Error> {
        while !self.step()? {}
        let model = self.upload.finish(self.checkpoint.config().clone());
        Ok(Engine { backend: self.backend, model, tokenizer: self.tokenizer, info: self.info })
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
