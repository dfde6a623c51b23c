//! A model's way from bytes into the engine.

use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::Engine;
use crate::backend::Device;
use crate::error::Error;
use crate::forward::Upload;
use crate::model::folder::FolderCheckpoint;
use crate::model::gguf::GgufStream;
use crate::model::{ModelConfig, StoredTensor, Weight};
use crate::report::ModelInfo;
use crate::tokenizer::Tokenizer;

/// A model on its way from bytes into the engine.
pub struct Loading {
    source: Source,
    /// Where the weights are to go.
    devices: Vec<Device>,
    /// What is known once the model's sizes are.
    opened: Option<Opened>,
}

/// Where tensors come from.
enum Source {
    /// Files that are there.
    Folder { checkpoint: FolderCheckpoint, todo: std::iter::Enumerate<std::vec::IntoIter<Weight>> },
    /// A file that arrives.
    Gguf { stream: GgufStream, hash: Sha256, name: String },
}

struct Opened {
    config: ModelConfig,
    tokenizer: Tokenizer,
    /// Without the weights' sha256 as long as they have not all arrived.
    info: ModelInfo,
    /// Where the weights go, the devices beside each other.
    uploads: Vec<(Device, Upload<Device>)>,
    n_tensors: usize,
}

impl Opened {
    fn new(
        config: ModelConfig,
        tokenizer: Tokenizer,
        sha256: String,
        name: &str,
        devices: &[Device],
    ) -> Self {
        let info = model_info(&config, &tokenizer, sha256, name);
        let n_tensors = config.tensors().len();
        Self { uploads: uploads(&config, devices), config, tokenizer, info, n_tensors }
    }

    fn take(&mut self, index: usize, tensor: &StoredTensor<'_>) {
        self.uploads.iter_mut().for_each(|(device, upload)| upload.take(device, index, tensor));
    }
}

fn uploads(config: &ModelConfig, devices: &[Device]) -> Vec<(Device, Upload<Device>)> {
    devices.iter().map(|device| (device.clone(), Upload::new(config))).collect()
}

impl Loading {
    /// Waits for the bytes of a GGUF file, which [`Self::feed`] brings; each tensor is taken when its last byte has arrived, and what was
    /// taken is held no longer. `size_bytes` is how long the file is said to be, where anyone says: without it the file is held whole.
    /// `name` is shown when the file names itself nowhere.
    pub fn gguf(name: &str, size_bytes: Option<u64>) -> Self {
        let stream = GgufStream::new(size_bytes);
        let source = Source::Gguf { stream, hash: Sha256::new(), name: name.to_owned() };
        Self { source, devices: vec![Device::default()], opened: None }
    }

    /// Opens a Hugging Face folder's files: `config.json`, `tokenizer.json` and the safetensors shards.
    pub fn from_folder(
        config_json: &[u8],
        tokenizer_json: &[u8],
        shards: Vec<Vec<u8>>,
        name: &str,
    ) -> Result<Self, Error> {
        let checkpoint = FolderCheckpoint::open(config_json, shards)?;
        let config = checkpoint.config().clone();
        let tokenizer = Tokenizer::from_json(tokenizer_json, checkpoint.bos_id(), config.d_vocab)?;
        let mut hash = Sha256::new();
        checkpoint.shards().iter().for_each(|shard| hash.update(shard));
        let sha256 = hex(&hash.finalize());
        let todo = config.tensors().into_iter().enumerate();
        let devices = vec![Device::default()];
        let opened = Opened::new(config, tokenizer, sha256, name, &devices);
        Ok(Self { source: Source::Folder { checkpoint, todo }, devices, opened: Some(opened) })
    }

    /// Where the weights are to go: the CPU, unless this says otherwise before the first step.
    pub fn onto(mut self, devices: Vec<Device>) -> Self {
        if let Some(opened) = &mut self.opened {
            opened.uploads = uploads(&opened.config, &devices);
        }
        Self { devices, ..self }
    }

    /// The next bytes of a file that arrives; steps take them in.
    ///
    /// # Panics
    /// Of a folder, whose files are there.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        let Source::Gguf { stream, hash, .. } = &mut self.source else {
            panic!("a folder's files are there")
        };
        hash.update(&bytes);
        stream.feed(bytes);
    }

    /// No more bytes come; steps say what is missing. Of a folder, nothing was to come.
    pub fn end(&mut self) {
        if let Source::Gguf { stream, .. } = &mut self.source {
            stream.end();
        }
    }

    /// Whether the model's sizes are known, and its tensors are being taken.
    pub fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Tensors taken.
    pub fn n_done(&self) -> usize {
        let uploads = self.opened.iter().flat_map(|opened| &opened.uploads);
        uploads.map(|(_, upload)| upload.n_done()).sum()
    }

    /// Tensors in all; 0 before they are known.
    pub fn n_total(&self) -> usize {
        self.opened.as_ref().map_or(0, |opened| opened.n_tensors * opened.uploads.len())
    }

    /// Reads the header or takes one tensor; true when that has to wait for more bytes, or nothing was left. Header, tokenizer and the
    /// presence of every tensor are checked before a tensor is taken.
    pub fn step(&mut self) -> Result<bool, Error> {
        match (&mut self.source, &mut self.opened) {
            (Source::Folder { checkpoint, todo }, Some(opened)) => {
                let Some((index, weight)) = todo.next() else { return Ok(true) };
                opened.take(index, &StoredTensor::Full(checkpoint.tensor(weight)?));
            }
            (Source::Gguf { stream, .. }, Some(opened)) => {
                let Some((place, bytes)) = stream.next_tensor()? else { return Ok(true) };
                let tensor = place.read(&opened.config, bytes)?;
                opened.take(place.index, &tensor);
            }
            (Source::Gguf { stream, name, .. }, None) => {
                let Some(header) = stream.header()? else { return Ok(true) };
                let config = header.config().clone();
                let tokenizer = Tokenizer::from_gguf(&header.metadata(), config.d_vocab)?;
                self.opened = Some(Opened::new(config, tokenizer, String::new(), name, &self.devices));
            }
            (Source::Folder { .. }, None) => unreachable!("a folder is opened when its files are there"),
        }
        Ok(false)
    }

    /// Takes what is left and gives the engine of the first device; no more bytes come.
    pub fn finish(self) -> Result<Engine, Error> {
        Ok(self.finish_all()?.remove(0))
    }

    /// Takes what is left and gives an engine for each device; no more bytes come.
    pub fn finish_all(mut self) -> Result<Vec<Engine>, Error> {
        self.end();
        while !self.step()? {}
        let Opened { config, tokenizer, mut info, uploads, .. } =
            self.opened.expect("a file that has ended has a header, or was refused");
        if let Source::Gguf { hash, .. } = self.source {
            info.sha256 = hex(&hash.finalize());
        }
        let tokenizer = Rc::new(tokenizer);
        let engine = |(backend, upload): (Device, Upload<Device>)| Engine {
            backend,
            model: Rc::new(upload.finish(config.clone())),
            tokenizer: Rc::clone(&tokenizer),
            info: info.clone(),
        };
        Ok(uploads.into_iter().map(engine).collect())
    }
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
