//! Headlight's automation: everything that `cargo xtask` does, and the static server and browser that the
//! browser tests share with it.

pub mod bench;
pub mod browser;
pub mod build;
pub mod growth;
pub mod models;
pub mod paths;
pub mod peers;
mod relaxed;
pub mod server;
pub mod setup;
pub mod shell;
pub mod test;
pub mod train;
