//! What the far side's shell makes of a command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use opmas::action::command_line;
use proptest::prelude::*;

/// The arguments that a shell hands to a program when it is given the line.
fn through(shell: &[&str], argv: &[String]) -> Vec<Vec<u8>> {
    let mut line = vec!["printf".to_owned(), "%s\\0".to_owned()];
    line.extend_from_slice(argv);
    let out = Command::new(shell[0]).args(&shell[1..]).arg(OsString::from_vec(command_line(&line).into_bytes())).env_clear().output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut parts: Vec<Vec<u8>> = out.stdout.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    parts.pop();
    parts
}

fn same_in_every_shell(argv: &[String]) {
    let wanted: Vec<Vec<u8>> = argv.iter().map(|a| a.clone().into_bytes()).collect();
    for shell in [&["sh", "-c"][..], &["busybox", "ash", "-c"]] {
        assert_eq!(through(shell, argv), wanted, "{shell:?}");
    }
}

#[test]
fn hostile_arguments_arrive_as_they_are() {
    let hostile = [
        "",
        "'",
        "''",
        "'; reboot; '",
        "$(reboot)",
        "`reboot`",
        "${IFS}",
        "a\nb",
        "\\",
        "\\'",
        "\"",
        "*",
        "~",
        "!!",
        "#x",
        "-n",
        "\u{1}\u{7f}",
        "ü'ß",
        "a\tb",
        "|&;<>()",
    ];
    same_in_every_shell(&hostile.map(str::to_owned));
}

#[test]
fn a_command_that_looks_like_an_assignment_is_a_command() {
    assert_eq!(command_line(&["A=b".to_owned(), "it's".to_owned()]), r"'A=b' 'it'\''s'");
}

#[test]
fn a_nul_ends_its_argument_and_no_other() {
    assert_eq!(command_line(&["a\0'; reboot".to_owned(), "b".to_owned()]), "'a' 'b'");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_text_arrives_as_it_is(argv in prop::collection::vec("[^\0]{0,24}|['\"`$()\\\\\n;& *]{0,24}", 1..8)) {
        same_in_every_shell(&argv);
    }
}
