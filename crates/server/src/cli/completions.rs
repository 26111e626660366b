//! `keyholder completions`: what a shell needs to complete the commands.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::error::Result;
use super::{Cli, Context};

/// Print the completions for a shell
#[derive(Args)]
#[command(
    after_help = "Example:\n  keyholder completions bash > ~/.local/share/bash-completion/completions/keyholder\n  keyholder completions fish > ~/.config/fish/completions/keyholder.fish"
)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &Context) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "keyholder", &mut script);
        context.out.raw(&script)
    }
}
