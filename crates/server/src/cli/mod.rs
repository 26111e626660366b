//! The command line: one file a command.
//!
//! Commands other than `serve`, `sandbox`, `demo` and `provider test` are clients of the HTTP API and know nothing of the broker.
//! [`run`] answers 0 when all went well, 1 when the request failed, 2 when the command line was wrong.

mod api;
mod audit;
mod call;
mod completions;
mod connect;
mod connection;
mod demo;
mod doctor;
mod error;
mod folder;
mod import;
mod integration;
mod key;
mod operator;
mod output;
mod provider;
mod rehearse;
mod sandbox;
mod seal;
mod serve;
mod signal;
mod source;
mod token;
mod usage;
pub(crate) mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use keyholder_oauth::Secret;

use self::api::Api;
use self::error::{CliError, Result};
use self::output::{Out, note};
use crate::config::{self, Config, Overrides};

/// Holds OAuth 2.0 connections for the programs that use them.
#[derive(Parser)]
#[command(
    name = "keyholder",
    version,
    after_help = "Example:\n  keyholder demo                      see it work, in one process\n  keyholder serve                     run the server\n  keyholder integration add github --provider github --client-id ID\n  keyholder connect github\n  keyholder call github /user"
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Apart from a command's own options.
const EVERYWHERE: &str = "Options of every command";

#[derive(Args)]
struct Common {
    /// Print the API's JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    /// Read this configuration file instead of ./keyholder.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = EVERYWHERE)]
    config: Option<PathBuf>,
    /// The server's data folder, where the API key is found too [default: ./keyholder-data]
    #[arg(long, global = true, value_name = "FOLDER", help_heading = EVERYWHERE)]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Sandbox(sandbox::Sandbox),
    #[command(subcommand)]
    Provider(provider::Provider),
    #[command(subcommand)]
    Integration(Box<integration::Integration>),
    #[command(subcommand)]
    Connection(connection::Connection),
    #[command(subcommand)]
    Source(Box<source::Source>),
    Import(import::Import),
    Connect(connect::Connect),
    Token(token::Token),
    Call(call::Call),
    #[command(subcommand)]
    Key(key::Key),
    #[command(subcommand)]
    Operator(operator::Operator),
    Audit(audit::Audit),
    Usage(usage::Usage),
    Doctor(doctor::Doctor),
    #[command(subcommand)]
    Seal(seal::Seal),
    Completions(completions::Completions),
}

/// What every command is given.
pub(crate) struct Context {
    /// Where its result goes.
    pub(crate) out: Out,
    config_file: Option<PathBuf>,
    data_dir: Option<PathBuf>,
}

impl Common {
    fn context(&self) -> Context {
        Context { out: Out::new(self.json), config_file: self.config.clone(), data_dir: self.data_dir.clone() }
    }
}

impl Context {
    /// The configuration, with these flags over it.
    pub(crate) fn config(&self, flags: Overrides) -> Result<Config> {
        let overrides = Overrides { config_file: self.config_file.clone(), data_dir: self.data_dir.clone(), ..flags };
        config::load(&overrides).map_err(|error| CliError::Usage(error.to_string()))
    }

    /// A client of the server that the configuration names.
    pub(crate) fn api(&self) -> Result<Api> {
        let config = self.config(Overrides::default())?;
        let ca =
            config.ca_file.as_ref().map(|path| std::fs::read(path).map_err(CliError::io(path.display().to_string())));
        let client = config.client;
        let key = match client.api_key {
            Some(key) => key,
            None => std::fs::read_to_string(&client.key_file)
                .map(|text| Secret::new(text.trim()))
                .map_err(|cause| CliError::NoKey { file: client.key_file, cause })?,
        };
        Api::new(&client.url, key, ca.transpose()?.as_deref())
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs a command line, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version too come this way. A reader that went away is no failure.
            let _ = answer.print();
            return ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2));
        }
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers(&cli) {
        runtime.worker_threads(workers);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note(format!("error: no threads can be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(dispatch(cli));
    // A thread that still waits for a line from the terminal must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                note(format!("error: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// How many threads the server shall have. A configuration that can't be read is refused by the command itself.
fn workers(cli: &Cli) -> Option<usize> {
    match cli.command {
        Command::Serve(_) => cli.common.context().config(Overrides::default()).ok()?.workers,
        _ => None,
    }
}

async fn dispatch(cli: Cli) -> Result {
    let context = cli.common.context();
    match cli.command {
        Command::Demo(command) => command.run(&context).await,
        Command::Serve(command) => command.run(&context).await,
        Command::Sandbox(command) => command.run(&context).await,
        Command::Provider(command) => command.run(&context).await,
        Command::Integration(command) => command.run(&context).await,
        Command::Connection(command) => command.run(&context).await,
        Command::Source(command) => command.run(&context).await,
        Command::Import(command) => command.run(&context).await,
        Command::Connect(command) => command.run(&context).await,
        Command::Token(command) => command.run(&context).await,
        Command::Call(command) => command.run(&context).await,
        Command::Key(command) => command.run(&context).await,
        Command::Operator(command) => command.run(&context).await,
        Command::Audit(command) => command.run(&context).await,
        Command::Usage(command) => command.run(&context).await,
        Command::Doctor(command) => command.run(&context).await,
        Command::Seal(command) => command.run(&context).await,
        Command::Completions(command) => command.run(&context),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command with its path, depth first.
    fn all(command: &clap::Command, path: &str, into: &mut Vec<(String, clap::Command)>) {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        into.push((path.clone(), command.clone()));
        for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
            all(child, &path, into);
        }
    }

    fn every_command() -> Vec<(String, clap::Command)> {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut commands = Vec::new();
        all(&command, "", &mut commands);
        commands
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_has_an_example() {
        for (path, mut command) in every_command() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example:\n  "), "`{path} --help` has no example");
        }
    }

    #[test]
    fn every_help_stays_as_it_is() {
        let mut shown = String::new();
        for (path, mut command) in every_command() {
            shown.push_str(&format!("=== {path}\n{}\n", command.render_long_help()));
        }
        insta::assert_snapshot!("help", shown);
    }
}
