//! An enrolled router: real dropbear and ash run the helper, and with the key of opmas nothing else.

use std::fs;
use std::io::Write;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use opmas::executor::{Request, Task};
use opmas::model::{OutcomeState, Verdict};
use serde_json::{Value, json};

use crate::executor::{Lab, is};
use crate::router::{ATTACKER, MANAGER, OTHER, ROUTER, eventually};

fn opmas(lab: &Lab, args: &[&str]) -> (i32, String) {
    let output = lab.router.opmas(&lab.base, args);
    (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn task(action: &str, params: Value) -> Task {
    Task { id: "test:1".into(), device: "ap1".into(), action: action.into(), params: params.as_object().unwrap().clone(), verdict: Verdict::Auto }
}

fn block(ip: &str) -> Task {
    task("block_ip", json!({"ip": ip, "duration": "1h"}))
}

/// ssh with the key of opmas, as somebody who has stolen it.
fn thief(lab: &Lab, options: &[&str], words: &[&str], input: &str) -> Output {
    let mut ssh = lab.router.command("mg", "ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    // ssh would take the `%` in its path for more than that.
    let key = lab.router.dir.path().join("stolen");
    fs::copy(lab.paths.key(), &key).unwrap();
    ssh.args(["-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", "-i"]).arg(key).args(options).arg("--").arg(format!("root@{ROUTER}")).args(words);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn the_key_runs_the_catalogue_and_nothing_else() {
    let lab = Lab::new();
    let (code, said) = opmas(&lab, &["device", "enroll", "ap1"]);
    assert!(code == 0 && said.contains("ap1: ok"), "{said}");
    assert!(fs::read_to_string(&lab.paths.devices).unwrap().contains("enrolled = true"));
    let keys = fs::read_to_string(lab.router.root().join("etc/dropbear/authorized_keys")).unwrap();
    assert!(keys.lines().count() == 2 && keys.contains("command=\"exec /etc/opmas/helper\",no-port-forwarding"), "{keys}");

    // Everything as on another device.
    let client = lab.start().await;
    let applied = client.perform(Request::Apply(block(ATTACKER))).await;
    is(&applied, OutcomeState::Enforced, "");
    assert_eq!(applied.commands[0].command.argv, ["nft", "-f", "-"]);
    assert!(!lab.router.reaches("at", ROUTER) && lab.router.reaches("ot", ROUTER));
    is(&client.perform(Request::Apply(block(MANAGER))).await, OutcomeState::Refused, "must not be blocked");
    is(&client.perform(Request::Verify(block(ATTACKER))).await, OutcomeState::Enforced, "");
    is(&client.perform(Request::Undo(block(ATTACKER))).await, OutcomeState::Undone, "");
    assert!(lab.router.reaches("at", ROUTER));
    is(&client.perform(Request::Apply(task("set_channel", json!({"radio": "radio0", "channel": "11"})))).await, OutcomeState::Enforced, "");
    is(&client.perform(Request::Apply(task("collect_diagnostics", json!({})))).await, OutcomeState::Enforced, "");
    let read = client.perform(Request::Apply(task("ping", json!({"ip": OTHER})))).await;
    assert!(read.evidence.as_deref().is_some_and(|read| read.contains(OTHER)), "{read:?}");
    client.shutdown().await;

    // No shell, no file, no way through; the mark would be there if anything of it had run.
    let mark = lab.router.root().join("tmp/pwned");
    let name = fs::read_to_string(lab.router.root().join("etc/opmas/helper")).unwrap();
    let name = name.lines().find_map(|line| line.strip_prefix("'block_ip ")?.split(' ').next()).unwrap().to_owned();
    let apply = format!("10 - block_ip {name} apply 0");
    let values = |ip: &str| format!("duration.seconds=60\nip={ip}\nip.version=4\n");
    let commands = [
        "touch /tmp/pwned",
        "sh",
        "10 - sh - x 0",
        "run",
        "$(touch /tmp/pwned)",
        "`touch /tmp/pwned`",
        "10; touch /tmp/pwned",
        "10 - block_ip;touch 0 apply 0",
        "10 - * * * 0",
        "99999 - block_ip x apply 0",
        "10 - block_ip x apply 0 && touch /tmp/pwned",
        "10 -\ntouch /tmp/pwned",
        "-c touch /tmp/pwned",
        "/usr/libexec/sftp-server",
        "scp -t /tmp",
        "10 - ../../bin/touch x /tmp/pwned 0",
        "10 - opmas x revision 0",
    ];
    for words in commands {
        let output = thief(&lab, &[], &[words], "touch /tmp/pwned\n");
        assert!(output.status.code() == Some(126) && output.stdout.is_empty(), "{words}: {output:?}");
    }
    let ips = [
        "203.0.113.9 }; add table inet pwned",
        "$(touch /tmp/pwned)",
        "203.0.113.9\nip.version=4\n;touch /tmp/pwned",
        "`touch /tmp/pwned`",
        "'; touch /tmp/pwned; '",
        "-f",
        "203.0.113.9\";touch /tmp/pwned;\"",
        "*",
        "\\",
    ];
    for ip in ips {
        let output = thief(&lab, &[], &[&apply], &values(ip));
        // What stands behind the last value is not read.
        assert!(output.status.code() == Some(126) || ip.starts_with("203.0.113.9\nip.version"), "{ip}: {output:?}");
    }
    let shell = thief(&lab, &["-tt"], &[], "touch /tmp/pwned\nexit\n");
    assert!(!shell.status.success(), "{shell:?}");
    assert!(!mark.exists() && !lab.router.nft().contains("pwned"));
    // Forwarding is refused too: nothing answers through it.
    let through = thief(&lab, &["-W", &format!("{ROUTER}:22")], &[], "");
    assert!(!through.status.success() && through.stdout.is_empty(), "{through:?}");
    // And what is allowed works by hand as well.
    assert!(thief(&lab, &[], &[&apply], &values("203.0.113.77")).status.success() && lab.router.nft().contains("203.0.113.77"));
}

#[tokio::test]
async fn facts_are_told_one_router_is_one_device_and_forgetting_leaves_nothing_behind() {
    let lab = Lab::new();
    let (code, said) = opmas(&lab, &["device", "add", "ap2", "root@[fd00:6f70::1]", "--yes"]);
    assert!(code == 3 && said.contains("this is the host key of ap1 (192.168.1.1): the same router at another address"), "{said}");
    let keys = lab.router.root().join("etc/dropbear/authorized_keys");
    let (before, public) = (fs::read_to_string(&keys).unwrap(), fs::read_to_string(lab.paths.key().with_extension("pub")).unwrap());
    for enrolled in [false, true] {
        if enrolled {
            lab.devices(&[("ap1", ROUTER)]);
            fs::write(lab.paths.known_hosts(), lab.router.host_key() + "\n").unwrap();
            fs::write(&keys, &before).unwrap();
            assert_eq!(opmas(&lab, &["device", "enroll", "ap1"]).0, 0);
        }
        let client = lab.start().await;
        is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
        client.shutdown().await;
        let (code, said) = opmas(&lab, &["device", "facts", "ap1", "--json"]);
        let facts: Value = serde_json::from_str(said.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
        assert_eq!((code, &facts["device"]["enrolled"]), (0, &if enrolled { json!(true) } else { Value::Null }), "{said}");
        assert!(facts["host_keys"][0].as_str().unwrap().starts_with("ssh-ed25519 SHA256:") && facts["check"]["report"]["clock_offset_s"].is_i64(), "{facts}");
        let versions = facts["check"]["report"]["versions"].to_string();
        assert!(["Linux", "nftables", "BusyBox", "Dropbear"].iter().all(|word| versions.contains(word)), "{versions}");

        lab.router.device("cut");
        let (code, said) = opmas(&lab, &["device", "forget", "ap1"]);
        assert!(code == 4 && said.contains("its table and key may be there still") && said.contains("ap1 is not forgotten"), "{said}");
        lab.router.device("join");
        let (code, said) = opmas(&lab, &["device", "forget", "ap1"]);
        assert!(code == 0 && said.contains("its table, its key and its helper are gone"), "{said}");
        let left = fs::read_to_string(&keys).unwrap();
        assert!(!left.contains(public.split(' ').nth(1).unwrap()) && left.lines().count() == 1, "{left}");
        assert!(!lab.router.root().join("etc/opmas").exists() && !lab.router.nft().contains("table inet opmas"));
        assert!(!fs::read_to_string(&lab.paths.devices).unwrap().contains("ap1") && fs::read_to_string(lab.paths.known_hosts()).unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_helper_of_another_catalogue_is_told_refused_and_mended_with_a_key_that_opens_a_shell() {
    let lab = Lab::new();
    assert_eq!(opmas(&lab, &["device", "enroll", "ap1"]).0, 0);
    let action = lab.base.join("playbooks/actions/block_ip.toml");
    let text = fs::read_to_string(&action).unwrap();
    fs::write(&action, text.replace("timeout 1s }", "timeout 2s }")).unwrap();
    let (code, said) = opmas(&lab, &["device", "check", "ap1"]);
    assert!(code == 1 && said.contains("its helper holds another catalogue than this one; run `opmas device enroll ap1 --identity FILE`"), "{said}");
    let client = lab.start().await;
    let reply = client.perform(Request::Apply(block(ATTACKER))).await;
    is(&reply, OutcomeState::Failed, "opmas device enroll");
    assert!(!lab.router.nft().contains(ATTACKER));
    // What has not changed works on.
    is(&client.perform(Request::Apply(task("ping", json!({"ip": OTHER})))).await, OutcomeState::Enforced, "");
    client.shutdown().await;

    let (code, said) = opmas(&lab, &["device", "enroll", "ap1"]);
    assert!(code == 4 && said.contains("opens no shell there") && said.contains("--identity FILE"), "{said}");
    let identity = lab.router.folder().join("id");
    let (code, said) = opmas(&lab, &["device", "enroll", "ap1", "--identity", identity.to_str().unwrap()]);
    assert!(code == 0 && said.contains("ap1: ok"), "{said}");
    let client = lab.start().await;
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
    client.shutdown().await;
    lab.router.gone("rt", "/etc/opmas/helper", Duration::from_secs(5));
}

/// The router's `/etc` on a flash of its own, which can be filled: seen by dropbear and what it starts.
struct Flash<'a> {
    lab: &'a Lab,
    etc: String,
    pid: i32,
}

impl Flash<'_> {
    fn new(lab: &Lab, kib: usize) -> Flash<'_> {
        let pid = lab.router.processes("rt").iter().find(|p| p.words[0].ends_with("dropbear") && p.words.iter().any(|w| w == "-F")).unwrap().pid;
        let flash = Flash { lab, etc: lab.router.root().join("etc").display().to_string(), pid };
        let aside = lab.router.dir.path().join("etc").display().to_string();
        flash.sh(&format!("cp -a $etc {aside}; mount -t tmpfs -o size={kib}k,mode=755 flash $etc; cp -a {aside}/. $etc/"));
        flash
    }

    fn sh(&self, script: &str) -> String {
        let inner = format!("etc='{}'; set -e; {script}", self.etc);
        self.lab.router.sh("rt", &format!("exec nsenter -m -t {} -- sh <<'END'\n{inner}\nEND", self.pid))
    }

    /// Everything but so many bytes is taken.
    fn fill(&self, but: usize) {
        self.sh(&format!("rm -f $etc/fill; head -c {but} /dev/zero >$etc/room; cat /dev/zero >$etc/fill 2>/dev/null || true; rm $etc/room"));
    }

    fn free(&self) {
        self.sh("rm -f $etc/fill");
    }

    /// The keys that may log in, with what the file is.
    fn keys(&self) -> String {
        self.sh("stat -c '%a %u %g' $etc/dropbear/authorized_keys; cat $etc/dropbear/authorized_keys")
    }

    /// The key files, and what stands beside them that should not.
    fn beside(&self) -> String {
        self.sh("ls -A $etc/dropbear $etc/opmas $etc 2>/dev/null | grep -E 'opmas$|new$' || true")
    }

    fn foreign(&self) -> String {
        self.keys().lines().filter(|line| !line.ends_with(" opmas")).map(|line| format!("{line}\n")).collect()
    }
}

#[test]
fn a_full_flash_takes_no_key_from_the_administrator() {
    let lab = Lab::new();
    let identity = lab.router.folder().join("id").display().to_string();
    // Keys of three pages, so that there can be room for some of them.
    let others: String = (0..130).map(|n| format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{n:043} admin{n}\n")).collect();
    lab.router.allow(&others);
    fs::write(lab.router.root().join("etc/sysupgrade.conf"), "## files that are kept\n/etc/mine").unwrap();
    let flash = Flash::new(&lab, 600);
    flash.sh("chmod 640 $etc/dropbear/authorized_keys; chown 0:7 $etc/dropbear/authorized_keys");
    let (before, foreign) = (flash.keys(), flash.foreign());
    assert!(foreign.starts_with("640 0 7\n") && foreign.lines().count() == 132, "{foreign}");
    let pinned = fs::read_to_string(lab.paths.known_hosts()).unwrap();

    // Enrolling, where there is no room for the helper, and for the helper alone.
    let script = opmas(&lab, &["device", "enroll", "ap1", "--print"]).1;
    let helper = script.split_once("helper() { cat <<").unwrap().1.split_once("\nwhy=").unwrap().0.len();
    for but in [0, 8 << 10, helper.next_multiple_of(4 << 10) + (8 << 10)] {
        flash.fill(but);
        let (code, said) = opmas(&lab, &["device", "enroll", "ap1"]);
        assert!(code == 4 && said.contains("ap1 was not enrolled, and its key is as it was") && said.contains("No space left on device"), "{but}: {said}");
        assert_eq!((flash.keys(), flash.beside()), (before.clone(), String::new()), "{but}");
        assert!(!fs::read_to_string(&lab.paths.devices).unwrap().contains("enrolled"));
    }
    flash.free();
    let (code, said) = opmas(&lab, &["device", "enroll", "ap1"]);
    assert!(code == 0 && said.contains("ap1: ok"), "{said}");
    assert_eq!(flash.foreign(), foreign);
    assert_eq!(flash.sh("cat $etc/sysupgrade.conf"), "## files that are kept\n/etc/mine\n/etc/opmas/\n");
    let (enrolled, entry) = (flash.keys(), fs::read_to_string(&lab.paths.devices).unwrap());

    // Forgetting, with room for none of what is written beside it, and for a part.
    for but in [0, 4 << 10, 8 << 10] {
        flash.fill(but);
        let (code, said) = opmas(&lab, &["device", "forget", "ap1"]);
        assert!(
            code == 4 && said.contains("stays as it was") && said.contains("No space left on device") && said.contains("ap1 is not forgotten"),
            "{but}: {said}"
        );
        assert_eq!(flash.keys(), enrolled, "{but}: {said}");
        assert!(fs::read_to_string(&lab.paths.devices).unwrap() == entry && fs::read_to_string(lab.paths.known_hosts()).unwrap() == pinned);
        // The key of opmas still runs the helper, so that it can be tried again.
        assert_eq!(flash.beside(), "opmas\n");
    }

    // Flash that fills up and becomes free all the time: all or nothing.
    let mut filler = lab.router.command("rt", "nsenter");
    filler.args(["-m", "-t", &flash.pid.to_string(), "--", "sh", "-c"]);
    filler.arg("while :; do cat /dev/zero >\"$0\" 2>/dev/null; : >\"$0\"; done").arg(format!("{}/fill", flash.etc));
    let mut filler = filler.spawn().unwrap();
    for _ in 0..6 {
        let (code, said) = opmas(&lab, &["device", "forget", "ap1"]);
        let keys = flash.keys();
        assert!((code == 0 && keys == foreign) || (code == 4 && keys == enrolled), "{code} {said}\n{keys}");
        if code == 0 {
            break;
        }
    }
    filler.kill().unwrap();
    filler.wait().unwrap();
    flash.free();

    if !fs::read_to_string(&lab.paths.devices).unwrap().contains("ap1") {
        lab.devices(&[("ap1", ROUTER)]);
        fs::write(lab.paths.known_hosts(), &pinned).unwrap();
        let (code, said) = opmas(&lab, &["device", "enroll", "ap1", "--identity", &identity]);
        assert_eq!(code, 0, "{said}");
    }
    let (code, said) = opmas(&lab, &["device", "forget", "ap1"]);
    assert!(code == 0 && said.contains("its table, its key and its helper are gone"), "{said}");
    assert_eq!((flash.keys(), flash.beside()), (foreign, String::new()));
    assert_eq!(flash.sh("cat $etc/sysupgrade.conf"), "## files that are kept\n/etc/mine\n");
}

#[test]
fn a_helper_that_is_gone_and_an_entry_that_does_not_know_of_it_are_told_with_the_remedy() {
    let lab = Lab::new();
    let identity = lab.router.folder().join("id").display().to_string();
    let root = lab.router.root();
    assert_eq!(opmas(&lab, &["device", "enroll", "ap1"]).0, 0);
    let remedy = "run `opmas device enroll ap1 --identity FILE`";
    for lost in ["helper", "entry", "both"] {
        if lost != "entry" {
            fs::remove_dir_all(root.join("etc/opmas")).unwrap();
        }
        if lost != "helper" {
            lab.devices(&[("ap1", ROUTER)]);
        }
        let cause = if lost == "entry" { "its entry in devices.toml has no `enrolled = true`" } else { "its helper /etc/opmas/helper is gone" };
        let (code, said) = opmas(&lab, &["device", "check", "ap1"]);
        assert!(code == 4 && said.contains(cause) && said.contains(remedy) && !said.contains("did not end"), "{lost}: {said}");
        let (code, said) = opmas(&lab, &["device", "forget", "ap1"]);
        assert!(code == 4 && said.contains(cause) && said.contains(remedy) && said.contains("mend that and try again"), "{lost}: {said}");
        assert!(said.contains("--anyway takes its entry away all the same, and leaves on the device `table inet opmas`"), "{lost}: {said}");
        let (code, said) = opmas(&lab, &["device", "enroll", "ap1", "--identity", &identity]);
        assert!(code == 0 && said.contains("ap1: ok"), "{lost}: {said}");
    }
    fs::remove_dir_all(root.join("etc/opmas")).unwrap();
    let (code, said) = opmas(&lab, &["device", "forget", "ap1", "--anyway"]);
    assert!(code == 0 && said.contains("What may be there still, to be taken away by hand: `table inet opmas`"), "{said}");
    assert!(!fs::read_to_string(&lab.paths.devices).unwrap().contains("ap1"));
}

/// Ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The router by a dropbear of its own, on port 2224, whose only host key is of RSA.
fn dropbear(lab: &Lab) -> Server {
    let root = lab.router.root();
    let script = format!("mount -t proc p '{0}/proc' && exec chroot '{0}' dropbear -F -r /etc/dropbear/rsa -p 2224", root.display());
    lab.router.sh("rt", &format!("dropbearkey -t rsa -s 2048 -f '{}/etc/dropbear/rsa' 2>&1", root.display()));
    Server(lab.router.command("rt", "unshare").args(["-mpf", "--kill-child", "sh", "-c", &script]).spawn().unwrap())
}

/// The router's network by a server, on port 2225, that signs with RSA and SHA-1 alone and knows no keys of Ed25519, as dropbear before 2020.79.
fn sha1(lab: &Lab) -> Server {
    let dir = lab.router.dir.path().join("sha1");
    fs::create_dir(&dir).unwrap();
    let keys = lab.router.root().join("etc/dropbear/authorized_keys");
    let lines =
        ["HostKeyAlgorithms ssh-rsa", "PubkeyAcceptedAlgorithms ssh-rsa,rsa-sha2-256,rsa-sha2-512", "Port 2225", "PidFile none", "StrictModes no", "UsePAM no"]
            .join("\n");
    fs::write(dir.join("config"), format!("{lines}\nHostKey {0}/key\nAuthorizedKeysFile {1}\n", dir.display(), keys.display())).unwrap();
    let script = format!(
        "ssh-keygen -qt rsa -b 2048 -N '' -f '{0}/key'; mount -t tmpfs none /run; mkdir /run/sshd; exec /usr/sbin/sshd -D -f '{0}/config'",
        dir.display()
    );
    Server(lab.router.command("rt", "unshare").args(["-mpf", "--kill-child", "sh", "-c", &script]).spawn().unwrap())
}

#[tokio::test]
async fn a_device_without_ed25519_is_logged_in_to_with_a_key_of_rsa() {
    let lab = Lab::new();
    let (_dropbear, _sha1) = (dropbear(&lab), sha1(&lab));
    let scan = |port: u16| lab.router.sh("mg", &format!("ssh-keyscan -t rsa -p {port} {ROUTER} 2>/dev/null || true"));
    eventually(Duration::from_secs(20), "the servers", || [2224, 2225].iter().all(|port| scan(*port).contains("ssh-rsa")));
    let keys = lab.router.root().join("etc/dropbear/authorized_keys");
    // The other key of ours, which the router knows, does not do at a server that knows no such keys.
    fs::write(lab.paths.known_hosts(), format!("{}\n{}", lab.router.host_key(), scan(2225))).unwrap();
    fs::write(&lab.paths.devices, format!("[[device]]\nname = 'old'\nhost = '{ROUTER}'\nport = 2225\nplatform = 'linux'\n")).unwrap();
    let (code, said) = opmas(&lab, &["device", "check", "old"]);
    assert!(code == 4 && said.contains("does not accept the key of opmas"), "{said}");
    lab.devices(&[("ap1", ROUTER)]);
    fs::write(lab.paths.known_hosts(), lab.router.host_key() + "\n").unwrap();

    for (name, port, platform) in [("older", 2225, "linux"), ("old", 2224, "openwrt-fw4")] {
        let (code, said) = opmas(&lab, &["device", "add", name, &format!("root@{ROUTER}:{port}"), "--platform", platform, "--yes"]);
        let line = said.lines().find(|line| line.contains(" ssh-rsa AAAA") && line.starts_with("no-port-forwarding,")).unwrap_or_else(|| panic!("{said}"));
        assert!(code == 0 && said.contains("  ssh-rsa SHA256:"), "{said}");
        if name == "older" {
            let (code, said) = opmas(&lab, &["device", "check", name]);
            assert!(code == 4 && said.contains("opmas device add root@192.168.1.1:2225 --name older"), "{said}");
            lab.router.allow(line);
        }
        let (code, said) = opmas(&lab, &["device", "check", name]);
        assert!(code == 0 && said.contains(&format!("{name}: ok")), "{said}");
        let client = lab.start().await;
        let block = Task { device: name.into(), ..block(ATTACKER) };
        is(&client.perform(Request::Apply(block.clone())).await, OutcomeState::Enforced, "");
        is(&client.perform(Request::Undo(block)).await, OutcomeState::Undone, "");
        is(&client.perform(Request::Check { device: "ap1".into() }).await, OutcomeState::Enforced, "ap1 answers");
        client.shutdown().await;
    }
    // It is enrolled with that key, and forgotten with it.
    let (code, said) = opmas(&lab, &["device", "enroll", "old"]);
    assert!(code == 0 && said.contains("old: ok"), "{said}");
    let known = fs::read_to_string(&keys).unwrap();
    assert_eq!((known.matches("command=\"exec /etc/opmas/helper\"").count(), known.matches("ssh-rsa").count()), (1, 1), "{known}");
    let (code, said) = opmas(&lab, &["device", "forget", "old"]);
    assert!(code == 0 && !fs::read_to_string(&keys).unwrap().contains("ssh-rsa"), "{said}");
}
