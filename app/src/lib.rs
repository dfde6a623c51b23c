//! Headlight in the browser: the page, and the worker that runs the engine. They meet in [`protocol`] and nowhere
//! else. Modules that touch the browser are compiled for wasm32 alone; the rest is tested natively.

pub mod embed;
pub mod export;
pub mod import;
pub mod lesson;
pub mod link;
pub mod live;
pub mod memory;
pub mod models;
pub mod protocol;
pub mod sharing;

#[cfg(target_arch = "wasm32")]
pub mod api;
#[cfg(target_arch = "wasm32")]
pub mod client;
#[cfg(target_arch = "wasm32")]
pub mod download;
#[cfg(target_arch = "wasm32")]
pub mod worker;

pub mod state;
pub mod view_model;

#[cfg(target_arch = "wasm32")]
pub mod components;

#[cfg(test)]
mod types;
