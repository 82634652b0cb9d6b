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
    let line = authorized(&stdout(&output));

    // Once more is no mistake: it prints the line again, the one that the check printed too.
    let again = router.opmas(&folder, &["device", "add", "ap1", &target]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(authorized(&stdout(&again)), line);
    assert_eq!(fs::read_to_string(folder.join("devices.toml")).unwrap(), text);
    for (args, words) in [
        (["ap1", "root@192.168.1.9"], "device `ap1` is there already, as root@192.168.1.1:22"),
        (["ap1", "admin@192.168.1.1"], "device `ap1` is there already, as root@192.168.1.1:22"),
        (["ap3", "root@192.168.1.1"], "is there already, as `ap1`"),
    ] {
        let output = router.opmas(&folder, &[&["device", "add", "--yes"], &args[..]].concat());
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
    // What would change its entry is not passed over.
    for (args, words) in [
        (["--platform", "linux"], "ap1 is there already with platform openwrt-fw4; write platform = \"linux\" for it"),
        (["--site", "farm"], "with site home; write site = \"farm\" for it"),
        (["--tag", "attic"], "with tags [\"lab\"]; write tags = [\"attic\"] for it"),
    ] {
        let output = router.opmas(&folder, &[&["device", "add", "ap1", &target], &args[..]].concat());
        assert!(output.status.code() == Some(3) && stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
    // Nobody has let opmas in yet.
    let output = router.opmas(&folder, &["device", "enroll", "ap1"]);
    assert!(
        output.status.code() == Some(4) && stderr(&output).contains(&format!("put this line into its /etc/dropbear/authorized_keys: {line}")),
        "{}",
        stderr(&output)
    );
    router.allow(&line);
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
    let said = stdout(&output);
    assert!(said.contains("host key of ap1 is not the pinned one") && said.contains("`opmas device add root@192.168.1.1 --name ap1`"), "{said}");
    let output = router.opmas(&folder, &["device", "add", "ap2", &format!("admin@{ROUTER}"), "--yes"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("another key is pinned"), "{}", stderr(&output));

    // A stopped firewall is something wrong (1), a device that does not answer is worse (4).
    let output = router.opmas(&folder, &["device", "check"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stdout(&output).contains("attic (192.168.1.250:22) cannot be reached"), "{}", stdout(&output));
}

/// The line for the device in what a command printed.
#[track_caller]
fn authorized(said: &str) -> String {
    let from = said.find("no-port-forwarding,").unwrap_or_else(|| panic!("no line for the device: {said}"));
    said[from..].lines().next().unwrap().to_owned()
}

#[test]
fn x1_a_reinstalled_device_and_a_lost_key_are_enrolled_anew() {
    let router = Router::up();
    let folder = router.dir.path().join("config");
    fs::create_dir(&folder).unwrap();
    let target = format!("root@{ROUTER}");
    let add = |more: &[&str]| router.opmas(&folder, &[&["device", "add", &target, "--name", "ap1"], more].concat());
    let check = || router.opmas(&folder, &["device", "check", "ap1"]);
    let advice = "`opmas device add root@192.168.1.1 --name ap1`";
    router.allow(&authorized(&stdout(&add(&["--yes"]))));
    assert_eq!(check().status.code(), Some(0));

    // Another key is believed only when somebody says so.
    let pinned = folder.join("opmas-data/keys/known_hosts");
    let before = fs::read_to_string(&pinned).unwrap();
    fs::remove_file(router.root().join("etc/dropbear/dropbear_ed25519_host_key")).unwrap();
    router.device("reboot");
    let said = stdout(&check());
    assert!(said.contains("host key of ap1 is not the pinned one") && said.contains(advice), "{said}");
    let output = add(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(stdout(&output).contains("Another key was pinned before: SHA256:") && stderr(&output).contains("--fingerprint SHA256:"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&pinned).unwrap(), before);
    let shown = stdout(&output).split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap().to_owned();
    // Nor does --yes, which is meant for one that nobody knows.
    let output = add(&["--yes"]);
    assert!(output.status.code() == Some(3) && stderr(&output).contains("--replace-host-key"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&pinned).unwrap(), before);
    let output = add(&["--replace-host-key"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(check().status.code(), Some(0));
    fs::write(&pinned, &before).unwrap();
    let output = add(&["--fingerprint", &shown]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&pinned).unwrap().lines().count(), 1, "the old one is gone");
    assert_eq!(check().status.code(), Some(0));

    // A lost key is made anew, and its line is put on the device.
    let key = folder.join("opmas-data/keys/id_ed25519");
    fs::remove_file(&key).unwrap();
    let said = stdout(&check());
    assert!(said.contains("there is no key") && said.contains(advice), "{said}");
    let output = add(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stdout(&output).contains("was pinned before"), "{}", stdout(&output));
    let line = authorized(&stdout(&output));
    assert_eq!(authorized(&stdout(&check())), line);
    router.allow(&line);
    assert_eq!(check().status.code(), Some(0));

    // So is the public half.
    fs::remove_file(key.with_extension("pub")).unwrap();
    let without = |line: &str| line.split(' ').take(3).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without(&authorized(&stdout(&add(&[])))), without(&line));
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
fn x1_a_router_is_made_to_send_its_log() {
    let router = Router::up();
    let folder = router.dir.path().join("config");
    fs::create_dir(&folder).unwrap();
    let source = |listen: &str| fs::write(folder.join("opmas.toml"), format!("[source.routers]\ntype = \"syslog\"\nlisten = \"{listen}\"\n")).unwrap();
    let setup = |more: &[&str]| router.opmas(&folder, &[&["device", "setup-log", "ap1"], more].concat());
    router.allow(&authorized(&stdout(&router.opmas(&folder, &["device", "add", "root@192.168.1.1", "--name", "ap1", "--yes"]))));

    // An address that the router cannot reach is no use to it.
    source("127.0.0.1:1514");
    let output = setup(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("write listen = \"0.0.0.0:1514\" under [source.routers]"), "{}", stderr(&output));
    source("0.0.0.0:1514");
    assert_eq!(router.opmas(&folder, &["device", "setup-log", "nobody"]).status.code(), Some(2));

    // Printed, nothing is done.
    let config = router.root().join("etc/config/system");
    let said = stdout(&setup(&[]));
    for line in
        ["uci -P /tmp/.uci-opmas set 'system.@system[0].log_ip=192.168.1.2'", "'system.@system[0].log_port=1514'", "'system.@system[0].log_hostname=ap1'"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    let untouched = || !fs::read_to_string(&config).unwrap().contains("log_ip");
    assert!(untouched());

    // What somebody else has not committed yet is not committed along.
    let foreign = router.root().join("tmp/.uci/system");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "system.cfg01e48a.hostname=half-done\n").unwrap();
    let output = setup(&["--apply"]);
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("wait uncommitted"), "{}", stdout(&output));
    assert!(untouched() && foreign.exists());
    fs::remove_file(&foreign).unwrap();

    let output = setup(&["--apply"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("everything was read back"), "{}", stdout(&output));
    let written = fs::read_to_string(&config).unwrap();
    for line in ["log_ip=192.168.1.2", "log_port=1514", "log_proto=tcp", "log_hostname=ap1", "log_remote=1"] {
        assert!(written.contains(&format!("system.cfg01e48a.{line}\n")), "{line}: {written}");
    }
    assert!(router.runs("rt", "192.168.1.2"), "the log daemon sends it there");

    let output = setup(&["--apply", "--udp", "--address", "fd00:6f70::2"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(router.runs("rt", "fd00:6f70::2") && !router.runs("rt", "192.168.1.2"));

    router.device("cut");
    assert_eq!(setup(&["--apply"]).status.code(), Some(4));
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

/// A transcript's commands with what they printed and their exit codes.
fn transcript(name: &str) -> Vec<(String, String, i32)> {
    let text = fs::read_to_string(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let commands = text.split("\n$ ").skip(1).map(|part| {
        let (command, rest) = part.split_once('\n').unwrap();
        let (printed, exit) = rest.rsplit_once("(exit ").unwrap();
        let code = exit.split(')').next().unwrap().parse().unwrap();
        (command.split("  #").next().unwrap().trim().to_owned(), printed.to_owned(), code)
    });
    commands.collect()
}

#[test]
fn the_stand_ins_of_the_router_answer_as_the_transcripts_of_the_real_ones_do() {
    let router = Router::up();
    // No access point runs.
    let radio = router.root().join("tmp/hostapd");
    crate::router::eventually(Duration::from_secs(5), "the radio is not up", || radio.join("phy0-ap1/banned").exists());
    fs::remove_dir_all(radio).unwrap();
    let asked = [
        "uci 'get'",
        "uci 'export' 'wireless'",
        "uci 'set' 'wireless.default_radio0.ssid",
        "uci 'set' 'wireless.bad",
        "uci 'set' 'wireless.default_radio0.bad",
        "uci 'set' 'wireless.absent",
        "uci 'changes'",
        "uci 'commit' 'wireless'",
        "ubus call nosuch",
        "ubus call network.interface nosuch",
        "ubus call network.interface dump '{bad'",
        "ubus list 'hostapd.*'",
    ];
    let mut seen = 0;
    for (command, printed, code) in ["openwrt-uci-transcript.txt", "openwrt-ubus-transcript.txt"].into_iter().flat_map(transcript) {
        // Lists and the firewall's rules are nothing that an action asks for.
        if !asked.iter().any(|one| command.starts_with(one)) || command.contains("firewall") || command.contains("maclist") {
            continue;
        }
        seen += 1;
        let output =
            router.command("rt", "chroot").arg(router.root()).args(["/bin/ash", "-c"]).arg(format!("PATH=/usr/sbin:/bin; {command} 2>&1")).output().unwrap();
        assert_eq!((stdout(&output), output.status.code()), (printed, Some(code)), "{command}");
    }
    assert!(seen >= 14, "{seen}");
}
