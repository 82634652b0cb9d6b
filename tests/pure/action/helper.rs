//! The helper of enrolled devices: what it runs is what a plan shows, argument by argument, and no value is more than data.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use opmas::action::{Action, Batch, Catalogue, Grammar, Op};
use opmas::config::shipped_actions;
use opmas::model::Platform;
use serde_json::{Map, Value};

/// A folder with a helper in which every program is one that says what it was given.
struct Bench {
    dir: tempfile::TempDir,
    catalogue: Catalogue,
}

const SHELLS: [&[&str]; 2] = [&["busybox", "ash"], &["dash"]];

impl Bench {
    fn new(platform: Platform) -> Bench {
        let (catalogue, wrong) = Catalogue::load(&shipped_actions());
        assert_eq!(wrong, []);
        let dir = tempfile::tempdir().unwrap();
        let (text, revision) = catalogue.helper(platform, &[]);
        assert!(text.contains(&revision));
        let text = text.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin", &format!("PATH={}", dir.path().display()));
        fs::write(dir.path().join("helper"), text).unwrap();
        let told = "#!/bin/sh\nprintf '%s\\0' \"${0##*/}\" \"$@\"; exec /bin/cat\n";
        for action in catalogue.iter() {
            for op in [Op::Apply, Op::Verify, Op::Undo, Op::Confirm] {
                for written in action.written(op, platform).unwrap_or_default() {
                    let program = dir.path().join(written.trim_start_matches('\'').split('\'').next().unwrap().rsplit('/').next().unwrap());
                    fs::write(&program, told).unwrap();
                    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        }
        Bench { dir, catalogue }
    }

    /// Exit code and standard output of the inner helper.
    fn run(&self, shell: &[&str], asked: &str, values: &str) -> (i32, Vec<u8>) {
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(self.dir.path().join("helper")).arg("run").env_clear().env("PATH", "/usr/bin:/bin").env("SSH_ORIGINAL_COMMAND", asked);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).current_dir(self.dir.path()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(values.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), output.stdout)
    }

    fn batch(&self, action: &Action, op: Op, platform: Platform, n: usize) -> Option<Batch> {
        let params: Map<String, Value> = action.params.iter().map(|param| (param.name.clone(), sample(&param.grammar, n))).collect();
        action.batch(op, platform, &action.params(&params).unwrap()).ok()
    }
}

fn sample(grammar: &Grammar, n: usize) -> Value {
    let of = |values: &[&str]| Value::from(values[n % values.len()]);
    match grammar {
        Grammar::Ip => of(&["203.0.113.9", "2001:db8::9"]),
        Grammar::Prefix => of(&["203.0.113.0/24", "2001:db8::/48"]),
        Grammar::Mac => of(&["02:00:00:00:00:0a", "fe:dc:ba:98:76:54"]),
        Grammar::Interface => of(&["wlan0.1", "br-lan_2"]),
        Grammar::Duration { min, max } => Value::from(format!("{}s", if n.is_multiple_of(2) { min.as_secs() } else { max.as_secs() })),
        Grammar::Int { min, max } => Value::from(if n.is_multiple_of(2) { *min } else { *max }),
        Grammar::Enum(words) => Value::from(words[n % words.len()].as_str()),
        Grammar::Word { .. } => of(&["a_b-C9", "radio0"]),
        Grammar::Text { .. } => of(&["a'b \"$(reboot)\" ${x} `reboot` \\ ; | * & > x", "=ö ~ % !"]),
    }
}

#[test]
fn the_helper_runs_what_a_plan_shows_and_nothing_else() {
    let mut compared = 0;
    for platform in [Platform::OpenwrtFw4, Platform::OpenwrtFw3, Platform::Linux] {
        let bench = Bench::new(platform);
        for action in bench.catalogue.iter() {
            for op in [Op::Apply, Op::Verify, Op::Undo, Op::Confirm] {
                for n in 0..2 {
                    let Some(batch) = bench.batch(action, op, platform, n) else { continue };
                    for (number, command) in batch.commands.iter().enumerate() {
                        let base = Path::new(&command.argv[0]).file_name().unwrap().to_str().unwrap();
                        // What has a path of its own is looked for there.
                        if command.argv[0].contains('/') {
                            continue;
                        }
                        let mut wanted: Vec<u8> =
                            [base].into_iter().chain(command.argv[1..].iter().map(String::as_str)).flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
                        wanted.extend(command.stdin.as_deref().unwrap_or_default().as_bytes());
                        for shell in SHELLS {
                            let asked = format!("9 - {} {number}", batch.name);
                            let (code, got) = bench.run(shell, &asked, &batch.values);
                            assert_eq!((code, String::from_utf8_lossy(&got)), (0, String::from_utf8_lossy(&wanted)), "{shell:?} {asked}");
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn what_is_not_of_the_catalogue_or_its_form_is_refused() {
    let bench = Bench::new(Platform::OpenwrtFw4);
    let block = bench.batch(bench.catalogue.get("block_ip").unwrap(), Op::Apply, Platform::OpenwrtFw4, 0).unwrap();
    let restart = bench.batch(bench.catalogue.get("restart_service").unwrap(), Op::Apply, Platform::OpenwrtFw4, 0).unwrap();
    let hostile = [
        "",
        "-f",
        "; reboot",
        "$(reboot)",
        "`reboot`",
        "1.2.3.4 }; flush ruleset",
        "1.2.3.4\nadd rule x",
        "'",
        "\"",
        "*",
        "../../bin/sh",
        "\u{0}",
        "\\",
        "1.2.3.4/0'",
        "A",
    ];
    let lines = block.values.lines().count();
    for shell in SHELLS {
        for number in 0..lines {
            for value in hostile {
                let line =
                    |(at, line): (usize, &str)| if at == number { format!("{}={value}\n", line.split('=').next().unwrap()) } else { format!("{line}\n") };
                let values: String = block.values.lines().enumerate().map(line).collect();
                let (code, got) = bench.run(shell, &format!("9 - {} 0", block.name), &values);
                // A NUL does not come through a shell's `read`: what is left is a value or none.
                assert!(code == 126 && got.is_empty(), "{shell:?} {value:?}: {code} {}", String::from_utf8_lossy(&got));
            }
        }
        let other = restart.values.replacen('=', "=dropbear", 1);
        assert_eq!(bench.run(shell, &format!("9 - {} 0", restart.name), &other).0, 126, "a service that is not listed");
        let stale = block.name.replace(block.name.split(' ').nth(1).unwrap(), "000000000000");
        for asked in ["", "sh", "9 - sh - x 0", "9 - block_ip", "9 - block_ip x apply 0", &format!("9 - {stale} 0"), &format!("9 - {} 99", block.name)] {
            assert_eq!(bench.run(shell, asked, &block.values), (126, Vec::new()), "{shell:?} {asked}");
        }
    }
}

#[test]
fn the_helper_is_read_in_a_minute_and_uses_openwrts_applets_alone() {
    let (catalogue, _) = Catalogue::load(&shipped_actions());
    let (text, _) = catalogue.helper(Platform::OpenwrtFw4, &[]);
    let head = include_str!("../../../src/action/helper.sh");
    assert!(head.lines().count() < 70 && text.len() < 64 << 10, "{} {}", head.lines().count(), text.len());
    // Programs of the part that is not the catalogue's; everything else in it are the shell's own words.
    let applets = include_str!("../../data/openwrt-busybox-applets.txt");
    for program in ["setsid", "sleep", "kill", "printf", "echo"] {
        assert!(head.contains(program) && applets.lines().any(|line| line == program), "{program}");
    }
}
