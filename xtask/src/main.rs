//! The command line of `cargo xtask`.

use clap::{Parser, Subcommand};
use xtask::build::{Profile, build, build_unless_current};
use xtask::server::{Serving, serve_dir};
use xtask::setup::{self, Install};
use xtask::shell::say;
use xtask::train::{self, Bundled};
use xtask::{bench, growth, models, paths, peers, test};

/// Headlight's automation.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need, and nothing that is there.
    Setup {
        /// Only say what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Fetch SmolLM2-135M, checked by sha256.
    Models,
    /// Build the page into dist/, servable by any static server from any path.
    Build {
        /// Quick to build, slow to run.
        #[arg(long)]
        dev: bool,
        /// Only say what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Set up, build and open the page on 127.0.0.1.
    Serve {
        /// Port; the next free one is taken when it is busy.
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// Only say what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Set up and run every check and test.
    Test {
        /// Only say what is missing.
        #[arg(long)]
        no_install: bool,
    },
    /// Prefill speed, natively and in Chromium, there beside other engines when they are installed, as JSON.
    Bench {
        /// Runs a length.
        #[arg(long, default_value_t = 3)]
        repeats: usize,
        /// Leave the browser out.
        #[arg(long)]
        native_only: bool,
        /// Install other engines first: onnxruntime-web and wllama from npm, their weights by Python (2 GB, outside the clone).
        #[arg(long, conflicts_with = "native_only")]
        peers: bool,
        /// Only how time grows on the page with length, layers and workers; draws tests/bench/growth.svg anew.
        #[arg(long, conflicts_with_all = ["native_only", "peers"])]
        growth: bool,
    },
    /// Train the bundled models again.
    TrainBundled {
        /// Which of them.
        #[arg(value_enum, default_value = "all")]
        model: Bundled,
        /// Arguments of the trainer, such as --steps 2000.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn install(no_install: bool) -> Install {
    if no_install { Install::Refused } else { Install::Allowed }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Setup { no_install } => {
            setup::for_build(install(no_install))?;
            setup::graphics(install(no_install))?;
            setup::browser(install(no_install))
        }
        Command::Models => models::fetch(),
        Command::Build { dev, no_install } => {
            setup::for_build(install(no_install))?;
            build(if dev { Profile::Dev } else { Profile::Release })
        }
        Command::Serve { port, no_install } => serve(port, install(no_install)).await,
        Command::Test { no_install } => test::test(install(no_install)),
        Command::Bench { repeats, native_only, peers, growth } => {
            setup::for_build(Install::Allowed)?;
            setup::browser(Install::Allowed)?;
            models::fetch()?;
            if peers {
                peers::install()?;
            }
            if !native_only {
                build(Profile::Release)?;
            }
            if growth { growth::growth().await } else { bench::bench(repeats, native_only).await }
        }
        Command::TrainBundled { model, arguments } => train::train_bundled(model, &arguments),
    }
}

async fn serve(port: u16, install: Install) -> anyhow::Result<()> {
    setup::for_build(install)?;
    models::fetch_or_explain();
    build_unless_current()?;
    let mut address = None;
    for port in port..port.saturating_add(20) {
        let serving = Serving { port, isolated: true, ..Serving::default() };
        match serve_dir(&paths::dist(), serving).await {
            Ok(listening) => {
                address = Some(listening);
                break;
            }
            Err(error) => say(&format!("{error:#}")),
        }
    }
    let Some(address) = address else {
        anyhow::bail!("no free port from {port} on; choose another with --port")
    };
    say("serving; stop with Ctrl-C");
    println!("http://{address}/");
    std::future::pending().await
}
