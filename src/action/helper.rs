//! The helper on an enrolled device: a POSIX shell script that the key of opmas runs there and nothing else. It holds the commands of the
//! catalogue, takes the name of an action's operation and typed values, and has each value's characters checked once more.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::catalogue::{Action, Catalogue, CommandTemplate, CommandsError, Op};
use super::params::Params;
use super::quote::command_line;
use super::template::Template;
use super::value::Grammar;
use crate::model::{Command, Platform, hex};

/// Where it is on a device.
pub const HELPER: &str = "/etc/opmas/helper";
/// How it ends where it says no, and how what it says begins.
pub const REFUSES: (i32, &str) = (126, "opmas: ");
/// What all helpers begin with.
const HEAD: &str = include_str!("helper.sh");

/// Commands of one operation, and what they are called in the helper.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// As a device without the helper runs them.
    pub commands: Vec<Command>,
    /// `block_ip 3f9c0a81d2e4 apply`: action, revision of its commands, operation.
    pub name: String,
    /// The values, a line each.
    pub values: String,
}

impl Batch {
    /// Commands that are always the same.
    #[must_use]
    pub fn fixed(operation: &str, commands: Vec<Command>) -> Batch {
        let lines: String = commands.iter().map(|command| command_line(&command.argv)).collect();
        Batch { name: format!("opmas {} {operation}", revision(&lines)), values: String::new(), commands }
    }
}

fn revision(text: &str) -> String {
    hex(Sha256::digest(text.as_bytes()).get(..6).unwrap_or_default())
}

/// The operations, and what they are called.
const OPS: [(Op, &str); 4] = [(Op::Apply, "apply"), (Op::Verify, "verify"), (Op::Undo, "undo"), (Op::Confirm, "confirm")];

impl Action {
    /// The commands of an operation with the values put in, and their name.
    ///
    /// # Errors
    /// The platform is not supported, or the action has no undo.
    pub fn batch(&self, op: Op, platform: Platform, params: &Params) -> Result<Batch, CommandsError> {
        let word = OPS.iter().find(|(one, _)| *one == op).map_or("", |(_, word)| word);
        let values = self.taken(platform).into_iter().map(|(name, (part, _))| format!("{name}={}\n", part.render(params))).collect();
        Ok(Batch { commands: self.commands(op, platform, params)?, name: format!("{} {} {word}", self.name, self.revision(platform)), values })
    }

    fn revision(&self, platform: Platform) -> String {
        revision(&format!("{}{}", self.takes(platform), self.arms(platform, "")))
    }

    fn all(&self, platform: Platform) -> impl Iterator<Item = (&'static str, usize, &CommandTemplate)> {
        OPS.iter().flat_map(move |(op, word)| self.templates(*op, platform).unwrap_or_default().iter().enumerate().map(|(at, one)| (*word, at, one)))
    }

    /// The values that the commands of a platform name, each with how it is written and what it may be.
    fn taken(&self, platform: Platform) -> BTreeMap<String, (Template, &Grammar)> {
        let templates = self.all(platform).flat_map(|(_, _, command)| command.argv.iter().chain(&command.stdin));
        let named = templates.flat_map(Template::variables);
        named.filter_map(|(name, param, part)| Some((name, (part, &self.param(param)?.grammar)))).collect()
    }

    /// The lines that take the values.
    fn takes(&self, platform: Platform) -> String {
        let mut lines = String::new();
        for (name, (_, grammar)) in self.taken(platform) {
            let takes = match (grammar, name.split_once('.').map_or("", |(_, property)| property)) {
                (_, "version") => format!("take {name} 46; one 4 6"),
                (_, "protocol") => format!("take {name} ip6; one ip ip6"),
                (Grammar::Enum(words), _) => format!("take {name}; one {}", command_line(words)),
                (Grammar::Duration { min, max }, "seconds") => format!("take {name} 0-9; range {} {}", min.as_secs(), max.as_secs()),
                (Grammar::Int { min, max }, _) => format!("take {name} 0-9; range {min} {max}"),
                (_, "length" | "ms_of_an_hour" | "seconds_of_24_days") => format!("take {name} 0-9"),
                (Grammar::Ip, _) | (Grammar::Prefix, "network" | "mask") => format!("take {name} 0-9a-f.:"),
                (Grammar::Prefix, _) => format!("take {name} 0-9a-f.:/"),
                (Grammar::Mac, _) => format!("take {name} 0-9a-f:"),
                (Grammar::Duration { .. }, _) => format!("take {name} 0-9a-z"),
                (Grammar::Interface, _) => format!("take {name} 0-9A-Za-z._-"),
                (Grammar::Word { .. }, _) => format!("take {name} 0-9A-Za-z_-"),
                // It stands for one argument and nowhere else.
                (Grammar::Text { .. }, _) => format!("take {name}"),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "  {takes}; {}=$v", variable(&name));
        }
        lines
    }

    /// The commands, each under its name.
    fn arms(&self, platform: Platform, revision: &str) -> String {
        let mut arms = String::new();
        for (word, at, command) in self.all(platform) {
            let argv: Vec<String> = command.argv.iter().map(written).collect();
            let input = command.stdin.as_ref().map_or_else(String::new, |stdin| format!("; input={}", written(stdin)));
            let _ = writeln!(arms, "'{} {revision} {word} {at}') set -- {}{input} ;;", self.name, argv.join(" "));
        }
        arms
    }
}

impl Catalogue {
    /// The helper for a platform, with commands that are always the same, and its revision.
    #[must_use]
    pub fn helper(&self, platform: Platform, fixed: &[Batch]) -> (String, String) {
        let (mut takes, mut arms) = (String::new(), String::new());
        for batch in fixed {
            for (at, command) in batch.commands.iter().enumerate() {
                let _ = writeln!(arms, "'{} {at}') set -- {} ;;", batch.name, command_line(&command.argv));
            }
        }
        for action in self.iter().filter(|action| action.platforms().any(|one| one == platform)) {
            let _ = write!(takes, "{})\n{}  ;;\n", action.name, action.takes(platform));
            arms.push_str(&action.arms(platform, &action.revision(platform)));
        }
        let text = HEAD.replace("#TAKES\n", &takes).replace("#ARMS\n", &arms);
        let revision = revision(&text);
        (text.replace("@REVISION@", &revision), revision)
    }
}

/// `p_ip_version` of `ip.version`.
fn variable(name: &str) -> String {
    format!("p_{}", name.replace('.', "_"))
}

/// A template as one word of the shell: text in single quotes, variables in double ones, so that neither is read again.
fn written(template: &Template) -> String {
    template.written(|text| command_line(&[text.to_owned()]), |name| format!("\"${}\"", variable(name)))
}
