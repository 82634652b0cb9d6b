//! The command line: arguments in, exit codes out (semantics X1). Data goes to standard output, logs to standard error.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use crate::config::Setup;
use crate::engine::Wish;

// In the place of the standard ones, which panic where standard output is closed or full.
macro_rules! println {
    ($($text:tt)*) => { $crate::cli::say(format_args!("{}\n", format_args!($($text)*))) };
}
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::say(format_args!($($text)*)) };
}

mod action;
mod alert;
mod channel;
mod check;
mod completions;
mod config;
mod delivery;
mod demo;
mod device;
mod eval;
mod explain;
mod finding;
mod hand;
mod init;
mod lease;
mod man;
mod normalise;
mod playbook;
mod posture;
mod recording;
mod replay;
mod rows;
mod rule;
mod run;
mod schema;
mod service;
mod show;
mod store;
mod test;

/// A streaming correlation and playbook engine.
#[derive(Parser)]
#[command(name = "opmas", version, max_term_width = 100)]
struct Arguments {
    /// The configuration; without it `opmas.toml` in this folder.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read logs, find, act and tell, as `opmas.toml` says.
    Run(run::Arguments),
    /// Show the whole loop on a recorded attack, then listen; changes nothing.
    Demo,
    /// Write a commented configuration with rules, playbooks, actions and channels.
    Init(init::Arguments),
    /// Read the whole configuration, say what is wrong and who may do what.
    Check,
    /// Hold the rules against the cases beside them (*.cases.yml).
    Test(test::Arguments),
    /// Evaluate rules over log lines from standard input, one JSON object a match.
    Eval(eval::Arguments),
    /// Show which part of a rule holds for the events on standard input, and which does not.
    Explain(explain::Arguments),
    /// List rules and their fields, and say what is wrong with them.
    #[command(subcommand)]
    Rule(rule::Command),
    /// Run recordings through the whole configuration: what is found, and what would be done and told; nothing is.
    Replay(replay::Arguments),
    /// Turn log lines from standard input into events, one JSON object a line.
    Normalise(normalise::Arguments),
    /// List and show what was found, and what was done about it.
    #[command(subcommand)]
    Finding(finding::Command),
    /// List playbooks, and their runs with steps and outcomes; run, pause, resume and cancel them.
    #[command(subcommand)]
    Playbook(playbook::Command),
    /// List and show the actions that playbooks may ask for.
    #[command(subcommand)]
    Action(action::Command),
    /// Have a run carry out the plan that it waits with.
    Approve(hand::OneRun),
    /// End a run that waits for an approval; nothing of its plan is carried out.
    Deny(hand::OneRun),
    /// Show or change how far the system may go now.
    Posture(posture::Arguments),
    /// List, end and extend what holds on devices.
    #[command(subcommand)]
    Lease(lease::Command),
    /// List what was told and is not over.
    #[command(subcommand)]
    Alert(alert::Command),
    /// List who was told, and what they answered.
    #[command(subcommand)]
    Delivery(delivery::Command),
    /// Add, check and list the devices that actions run on.
    #[command(subcommand)]
    Device(device::Command),
    /// List and test the channels that alerts go to.
    #[command(subcommand)]
    Channel(channel::Command),
    /// Look after the data folder.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Prove that the ledger was not rewritten.
    #[command(subcommand)]
    Audit(store::AuditCommand),
    /// Show the configuration as opmas understands it.
    #[command(subcommand)]
    Config(config::Command),
    /// Print the JSON Schema of what opmas writes.
    Schema(schema::Arguments),
    /// Print what a shell needs to complete the commands.
    Completions(completions::Arguments),
    /// Print the manual, or write a page for every command.
    Man(man::Arguments),
}

/// How a command ends (semantics X1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Done, whatever was found.
    Done = 0,
    /// `test`, `check` or `verify` found something wrong.
    Wrong = 1,
    /// The arguments are not of the command's form.
    Usage = 2,
    /// No valid configuration, or no rule loaded.
    Invalid = 3,
    /// A one-shot command could not reach its device, channel, broker or engine.
    Unreachable = 4,
}

/// Why a command ends early: told on standard error as `opmas: <message>`.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl std::fmt::Display) -> Failure {
        Failure { exit, message: message.to_string() }
    }
}

/// A configuration that is named has to be one, also where the command needs nothing of it.
fn named(config: Option<&Path>) -> Result<(), Failure> {
    let read = config.map(|file| Setup::settings(Some(file))).transpose();
    read.map(drop).map_err(|error| Failure::new(Exit::Invalid, error))
}

/// What every command returns.
type Done = Result<Exit, Failure>;

/// Why standard output takes no more. The command goes on to its end, since it may be about more than its output.
static OUTPUT: OnceLock<io::Error> = OnceLock::new();

/// Writes to standard output while it takes anything.
fn say(text: std::fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    if OUTPUT.get().is_none()
        && let Err(error) = output.write_fmt(text).and_then(|()| output.flush())
    {
        let _ = OUTPUT.set(error);
    }
}

/// What a failed write to standard output means: a reader that has seen enough (`| head`) is no error, a full device is one.
fn unwritten(error: &io::Error) -> Done {
    broken(error, "standard output takes no more")
}

/// The same for a command that also reads.
fn uncopied(error: &io::Error) -> Done {
    broken(error, "reading standard input or writing standard output failed")
}

fn broken(error: &io::Error, what: &str) -> Done {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        _ => Err(Failure::new(Exit::Wrong, format!("{what}: {error}"))),
    }
}

/// Writes a whole text to standard output.
fn print(output: &mut impl Write, text: &[u8]) -> Result<(), Failure> {
    output.write_all(text).and_then(|()| output.flush()).or_else(|error| unwritten(&error).map(drop))
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // The one TLS provider of this process; only a second call fails.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let printed = error.print().and_then(|()| io::stdout().flush());
            // Help and version go to standard output and are no error.
            let done = if error.use_stderr() { Ok(Exit::Usage) } else { printed.map(|()| Exit::Done).or_else(|error| unwritten(&error)) };
            return ended(done);
        }
    };
    let config = arguments.config.as_deref();
    let done = match arguments.command {
        Command::Run(arguments) => run::run(config, &arguments),
        Command::Demo => demo::run(),
        Command::Init(arguments) => init::run(&arguments),
        Command::Check => check::run(config),
        Command::Test(arguments) => test::run(config, &arguments),
        Command::Eval(arguments) => eval::run(config, &arguments),
        Command::Explain(arguments) => explain::run(config, &arguments),
        Command::Rule(command) => rule::run(config, &command),
        Command::Replay(arguments) => replay::run(config, &arguments),
        Command::Normalise(arguments) => normalise::run(config, &arguments),
        Command::Finding(command) => finding::run(config, &command),
        Command::Playbook(command) => playbook::run(config, &command),
        Command::Action(command) => action::run(config, &command),
        Command::Approve(one) => hand::order(config, &one, Wish::Approve, "goes on as approved"),
        Command::Deny(one) => hand::order(config, &one, Wish::Deny, "is denied and has ended"),
        Command::Posture(arguments) => posture::run(config, &arguments),
        Command::Lease(command) => lease::run(config, &command),
        Command::Alert(command) => alert::run(config, &command),
        Command::Delivery(command) => delivery::run(config, &command),
        Command::Device(command) => device::run(config, &command),
        Command::Channel(command) => channel::run(config, &command),
        Command::Store(command) => store::run(config, &command),
        Command::Audit(command) => store::audit(config, &command),
        Command::Config(command) => config::run(config, &command),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    let done = match OUTPUT.get().map(unwritten) {
        Some(Err(failure)) if done.is_ok() => Err(failure),
        _ => done,
    };
    ended(done)
}

/// How the process ends.
fn ended(done: Done) -> ExitCode {
    match done {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            eprintln!("opmas: {}", failure.message);
            ExitCode::from(failure.exit as u8)
        }
    }
}
