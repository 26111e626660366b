//! `keyholder demo`: server, practice provider and every grant in one process, and a story that checks itself.
//!
//! | module | holds |
//! | --- | --- |
//! | `stage` | the servers, their ports, their temporary folder |
//! | `narrator` | numbered steps, as a person reads them |
//! | `provider` | what the operator of the practice provider does |
//! | `form`, `browser` | the person's browser |
//! | `story`, `grants`, `renewal`, `trouble` | the steps |
//!
//! The story talks HTTP to the server, as any client does; nothing here reaches into it.

mod browser;
mod form;
mod grants;
mod narrator;
mod provider;
mod renewal;
mod stage;
mod story;
mod trouble;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use clap::Args;

use self::narrator::Narrator;
use self::stage::Stage;
use self::story::Story;
use super::error::Result;
use super::output::{Out, Tint};
use super::{Context, signal};

/// See it work: server, practice provider and every grant in one process
///
/// Tells a story in steps and checks each. Then the server stays up to play with, until Ctrl-C. All data lies in a temporary folder that is
/// removed at the end.
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder demo\n  keyholder demo --once        tell the story and exit: 0 when every step held, else 1"
)]
pub(crate) struct Demo {
    /// Exit after the story; one line a step
    #[arg(long)]
    once: bool,
    /// Where the server listens [default: 127.0.0.1:8787, or a free port]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

impl Demo {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let out = &context.out;
        let stage = Stage::set_up(self.listen).await?;
        let told = tokio::select! {
            told = tell(&stage, out, self.once) => told,
            () = signal::stop() => Err(super::CliError::Failed("stopped before the end of the story".to_owned())),
        };
        if told.is_ok() && !self.once {
            invite(out, &stage)?;
            signal::stop().await;
            out.line("\nThe curtain falls: everything is stopped and removed.")?;
        }
        stage.take_down().await;
        told
    }
}

async fn tell(stage: &Stage, out: &Out, once: bool) -> Result {
    if !once {
        out.line(out.paint("Keyholder holds OAuth connections, so that no other program has to.", Tint::Bold))?;
        out.line("A server, a practice provider, a person and a few programs, all on this machine:\n")?;
    }
    let narrator = Narrator::new(out, !once);
    let ask = !once && io::stdin().is_terminal() && io::stdout().is_terminal();
    let steps = Story::new(stage, &narrator, ask)?.tell().await?;
    out.line(format!("{}{} All {steps} steps held.", if once { "\n" } else { "" }, out.paint("✓", Tint::Green)))
}

/// What to try next, ready to be copied.
fn invite(out: &Out, stage: &Stage) -> Result {
    let program = std::env::args().next().unwrap_or_else(|| "keyholder".to_owned());
    let (key_file, sandbox) = (stage.key_file().display().to_string(), stage.sandbox.as_str().trim_end_matches('/'));
    out.line(format!(
        "\nThe server stays up at {}, the practice provider at {sandbox}, until Ctrl-C.\nThe administrator's API key lies in {key_file}.\n\nIn another terminal, in this folder:\n",
        stage.url
    ))?;
    let commands = [
        (format!("export KEYHOLDER_URL={}", stage.url), ""),
        (format!("export KEYHOLDER_API_KEY=$(cat {key_file})"), ""),
        (format!("{program} connection list"), "how everything is"),
        (format!("{program} token machine"), "a fresh access token, nothing else"),
        (format!("{program} call calendar /me"), "an API call; the token is put in on the way"),
        (format!("{program} connect calendar --connection mine"), "say yes yourself, in the browser"),
        (format!("curl -d '{{\"all\": true}}' {sandbox}/admin/revoke"), "the provider withdraws everything …"),
        (format!("{program} connection refresh calendar"), "… and this is what you see"),
        (format!("{program} audit"), "who did what"),
        (format!("{program} operator link"), "a link to the console, to be opened in the browser"),
    ];
    let width = commands.iter().filter(|(_, why)| !why.is_empty()).map(|(c, _)| c.chars().count()).max().unwrap_or(0);
    for (command, why) in commands {
        let line = if why.is_empty() {
            command
        } else {
            format!("{command:<width$}  {}", out.paint(&format!("# {why}"), Tint::Dim))
        };
        out.line(format!("  {line}"))?;
    }
    out.line(format!("\nOpen {sandbox} in a browser to see which faults the provider can be told to have."))
}
