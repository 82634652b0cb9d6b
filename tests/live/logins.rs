//! What a real sshd and a real sudo log is typed (`tests/device/logins.sh`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// The lines that come to a log socket while the script runs, as a log daemon gets them.
fn logged() -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path().join("dev")).unwrap();
    let socket = UnixDatagram::bind(dir.path().join("dev/log")).unwrap();
    fs::set_permissions(dir.path().join("dev/log"), fs::Permissions::from_mode(0o666)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/logins.sh");
    let mut run = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "--kill-child"]).arg(script).arg(dir.path()).spawn().unwrap();
    let (mut lines, mut bytes) = (Vec::new(), [0; 8192]);
    loop {
        match socket.recv(&mut bytes) {
            Ok(length) => lines.push(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(_) => {
                if let Some(status) = run.try_wait().unwrap() {
                    assert!(status.success());
                    return lines;
                }
            }
        }
    }
}

fn events(lines: &[String]) -> Vec<Value> {
    let mut opmas = Command::new(env!("CARGO_BIN_EXE_opmas")).arg("normalise").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (opmas.stdin.take().unwrap(), lines.join("\n") + "\n");
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, input.as_bytes()));
    let output = opmas.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn x4_what_sshd_and_sudo_log_is_typed() {
    let lines = logged();
    let events = events(&lines);
    let untyped: Vec<&Value> = events.iter().filter(|event| event.get("action").is_none()).collect();
    assert!(untyped.is_empty() && events.len() > 60, "{} lines, untyped: {untyped:#?}", events.len());
    let seen = |program: &str, action: &str, fields: &[(&str, &str)]| {
        let is = |event: &&Value| event["program"] == program && event["action"] == action && fields.iter().all(|(name, value)| event[name] == *value);
        assert!(events.iter().any(|event| is(&event)), "{program} {action} {fields:?} in {lines:#?}");
    };
    let home = ("src_ip", "127.0.0.1");
    seen("sshd", "login_failed", &[("user", "alice"), home, ("auth_method", "password")]);
    seen("sshd", "login_failed", &[("user", "root' from 8.8.8.8 port 22 ssh2"), home]);
    seen("sshd", "login_ok", &[("user", "alice"), home, ("auth_method", "keyboard-interactive/pam")]);
    seen("sshd", "login_ok", &[("user", "alice"), home, ("auth_method", "publickey"), ("key_type", "ED25519")]);
    seen("sshd", "login_unknown_user", &[("user", "ghost"), home]);
    seen("sshd", "login_refused", &[("user", "bob"), ("reason", "listed in DenyUsers")]);
    seen("sshd", "login_tries_exceeded", &[("user", "alice"), home]);
    seen("sshd", "connection_probe", &[home, ("reason", "invalid format")]);
    seen("sudo", "sudo_command", &[("user", "alice"), ("target_user", "root"), ("command", "/usr/bin/id")]);
    seen("sudo", "sudo_failed", &[("user", "alice"), ("target_user", "root")]);
    seen("sudo", "sudo_refused", &[("user", "bob"), ("reason", "command not allowed")]);
    assert!(!events.iter().any(|event| event["src_ip"] == "8.8.8.8" || event["target_user"] == "nobody"), "{lines:#?}");
}
