//! SSH hands the far side one string, which its shell takes apart: the one place where that string is made.

/// One line for a POSIX shell that runs exactly these arguments: each is put into single quotes, inside which the shell
/// knows no special character at all, and a single quote itself becomes `'\''` (POSIX.1-2017, Shell Command Language 2.2.2).
///
/// A NUL cannot be in an argument of any program: everything from the first one on is left out of that argument.
#[must_use]
pub fn command_line(argv: &[String]) -> String {
    let quoted: Vec<String> = argv.iter().map(|argument| quote(argument)).collect();
    quoted.join(" ")
}

fn quote(argument: &str) -> String {
    let argument = argument.split('\0').next().unwrap_or_default();
    format!("'{}'", argument.replace('\'', r"'\''"))
}
