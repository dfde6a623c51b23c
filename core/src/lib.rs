//! Runs a transformer language model and shows what each attention head does.
//!
//! Pure computation: this library takes bytes and gives data. It does no IO (no file, network, clock or page),
//! so that the same source serves the command line and a browser's worker. Modules import downward only, in
//! the order of the list below; `tests/tests/tidy.rs` guards both rules.

pub mod ids;
pub mod tensor;

pub mod activations;

pub mod model;
pub mod tokenizer;

pub mod hooks;

pub mod metrics;

pub mod backend;

pub mod forward;

pub mod decode;

pub mod detect;

pub mod ablate;

pub mod report;

pub mod script;

pub mod error;

pub mod engine;
