//! `opmas device` as a user types it, and what the router itself sends.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use crate::router::{ATTACKER, MANAGER, ROUTER, Router};

const DEVICES: &str = "# our routers\n\n[[device]]\nname = \"attic\" # never on\nhost = \"192.168.1.250\"\n\n# add more below\n";

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn x1_a_device_is_added_and_checked() {
    let router = Router::up();
    let folder = router.dir.path().join("config");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("devices.toml"), DEVICES).unwrap();
    let target = format!("root@{ROUTER}");

    // Nobody is there to compare the fingerprint: it is believed at first sight, and that is said.
    let other = router.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let output = router.opmas(&other, &["device", "add", &target]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("SHA256:") && stdout(&output).contains("Nobody was here to compare it"), "{}", stdout(&output));
    assert!(fs::read_to_string(other.join("devices.toml")).unwrap().contains(&format!("name = \"{ROUTER}\"")));

    // A fingerprint that is given must be the one.
    let output = router.opmas(&folder, &["device", "add", &target, "--fingerprint", "SHA256:AAAA"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(!folder.join("opmas-data/keys/known_hosts").exists());
    assert_eq!(fs::read_to_string(folder.join("devices.toml")).unwrap(), DEVICES);

    // The fingerprint is the one that the router itself tells.
    let key = router.root().join("etc/dropbear/dropbear_ed25519_host_key");
    let own = router.sh("rt", &format!("dropbearkey -y -f {} | sed -n 's/^Fingerprint: //p'", key.display()));
    let output = router.opmas(&folder, &["device", "add", "ap1", &target, "--site", "home", "--tag", "lab", "--fingerprint", own.trim()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains(own.trim()), "{}", stdout(&output));
    let text = fs::read_to_string(folder.join("devices.toml")).unwrap();
    assert!(text.starts_with(DEVICES) && text.contains("name = \"ap1\"") && text.contains("site = \"home\"") && text.contains("tags = [\"lab\"]"), "{text}");

    // What was written is a data folder, which the engine takes for its own.
    drop(opmas::journal::DataDir::open(&folder.join("opmas-data")).unwrap());

    let output = router.opmas(&folder, &["device", "check", "ap1"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stdout(&output).contains("does not accept the key"), "{}", stdout(&output));

    let added = router.opmas(&folder, &["device", "add", "ap1", &format!("root@{ROUTER}"), "--yes"]);
    assert_eq!(added.status.code(), Some(3));
    assert!(stderr(&added).contains("device `ap1` is there already"), "{}", stderr(&added));
    let public = fs::read_to_string(folder.join("opmas-data/keys/id_ed25519.pub")).unwrap();
    router.allow(&opmas::executor::enroll::authorized_line(&public));
    let output = router.opmas(&folder, &["device", "check", "ap1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["report"]["system"], "OpenWrt 24.10.4");
    assert_eq!(report["report"]["manager"], MANAGER);
    assert_eq!((&report["report"]["nft"], &report["report"]["fw4"]), (&true.into(), &true.into()));

    let output = router.opmas(&folder, &["device", "list"]);
    assert!(stdout(&output).contains("ap1") && stdout(&output).contains("attic"), "{}", stdout(&output));

    // A router with another key is not the one that was pinned.
    fs::remove_file(&key).unwrap();
    router.device("reboot");
    let output = router.opmas(&folder, &["device", "check", "ap1"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stdout(&output).contains("host key of ap1 is not the pinned one"), "{}", stdout(&output));
    let output = router.opmas(&folder, &["device", "add", "ap2", &format!("admin@{ROUTER}"), "--yes"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("another key is pinned"), "{}", stderr(&output));

    // A stopped firewall is something wrong (1), a device that does not answer is worse (4).
    let output = router.opmas(&folder, &["device", "check"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stdout(&output).contains("attic (192.168.1.250:22) cannot be reached"), "{}", stdout(&output));
}

#[test]
fn x1_what_cannot_be_added_says_why() {
    let router = Router::up();
    let folder = router.dir.path().join("config");
    fs::create_dir(&folder).unwrap();
    for (args, code, words) in [
        (&["-oProxyCommand=reboot"][..], 2, "unexpected argument"),
        (&["root@-oProxyCommand=reboot"], 2, "`host` is"),
        (&["ap1", "-l@192.168.1.1"], 2, "unexpected argument"),
        (&["AP 1", "root@192.168.1.1"], 2, "a name has"),
        (&["root@192.168.1.1:99999"], 2, "the address has the form"),
        (&["root@192.168.1.250", "--yes"], 4, "shows no ssh host key"),
        (&["root@192.168.1.1:23", "--yes"], 4, "shows no ssh host key"),
    ] {
        let output = router.opmas(&folder, &[&["device", "add"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing was written");
    let output = router.opmas(&folder, &["device", "check", "nobody"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn the_router_sends_its_own_log_lines() {
    let router = Router::up();
    let socket = router.inside("mg", || UdpSocket::bind((MANAGER, 1514)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(!router.login("at", "wrong", "true"));
    assert!(router.login("at", "secret", "logger -t x it works"));
    let mut lines = Vec::new();
    let mut buffer = [0u8; 2048];
    while !lines.iter().any(|line: &String| line.contains("it works")) {
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip().to_string(), ROUTER);
        lines.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
    }
    let has = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(has(" ap1 dropbear["), "{lines:#?}");
    assert!(has(&format!("Bad password attempt for 'root' from {ATTACKER}:")), "{lines:#?}");
    assert!(has(&format!("Password auth succeeded for 'root' from {ATTACKER}:")), "{lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with('<') && !line.ends_with('\n')), "{lines:#?}");
}
