//! The shipped action against the real nft, in network namespaces of its own: a router between an attacker and a server.

use std::io::Write as _;
use std::process::{Command as Process, Stdio};
use std::thread::sleep;
use std::time::Duration;

use opmas::action::{Action, Catalogue, CommandResult, Op, Params, Readback, ReadbackState, command_line};
use opmas::diag::SourceFile;
use opmas::model::{Command, Platform, Span};
use serde_json::json;

const BLOCK_IP: &str = include_str!("../../playbooks/actions/block_ip.toml");
const ATTACKER: [&str; 2] = ["10.77.1.2", "fd77:1::2"];
const ROUTER: [&str; 2] = ["10.77.1.1", "fd77:1::1"];
const SERVER: [&str; 2] = ["10.77.2.2", "fd77:2::2"];

/// Three network namespaces in a row, taken away when dropped.
struct Net {
    name: String,
}

impl Net {
    fn new(test: &str) -> Net {
        let net = Net { name: format!("opmas-{}-{test}", std::process::id()) };
        for role in ["a", "r", "s"] {
            sh(&format!("ip netns add {}", net.ns(role)));
            net.run(role, "ip link set lo up");
        }
        net.join("a", 1);
        net.join("s", 2);
        net.run("r", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
        net
    }

    /// A link between the router and an end, with an IPv4 and an IPv6 network.
    fn join(&self, end: &str, number: u8) {
        let (router, other) = (self.ns("r"), self.ns(end));
        sh(&format!("ip -n {router} link add to-{end} type veth peer name eth0 netns {other}"));
        for (ns, interface, host) in [(&router, format!("to-{end}"), 1), (&other, "eth0".to_owned(), 2)] {
            sh(&format!("ip -n {ns} link set {interface} up"));
            sh(&format!("ip -n {ns} addr add 10.77.{number}.{host}/24 dev {interface}"));
            sh(&format!("ip -n {ns} addr add fd77:{number}::{host}/64 dev {interface} nodad"));
        }
        sh(&format!("ip -n {other} route add default via 10.77.{number}.1"));
        sh(&format!("ip -n {other} -6 route add default via fd77:{number}::1"));
    }

    fn ns(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    fn run(&self, role: &str, line: &str) -> String {
        sh(&format!("ip netns exec {} sh -c {}", self.ns(role), command_line(&[line.to_owned()])))
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let family = if to.contains(':') { "-6" } else { "-4" };
        let ping = format!("ip netns exec {} busybox ping {family} -c 1 -W 1 {to}", self.ns(from));
        Process::new("sh").args(["-c", &ping]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Runs a command on the router as the executor does: one line for its shell, data on standard input.
    fn command(&self, command: &Command) -> CommandResult {
        let mut process = Process::new("ip");
        process.args(["netns", "exec", &self.ns("r"), "busybox", "ash", "-c", &command_line(&command.argv)]);
        let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(command.stdin.clone().unwrap_or_default().as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        CommandResult { status: out.status.code(), stdout: out.stdout, stderr: out.stderr, cut: None }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for role in ["a", "r", "s"] {
            let _ = Process::new("ip").args(["netns", "del", &self.ns(role)]).status();
        }
    }
}

fn sh(line: &str) -> String {
    let out = Process::new("sh").args(["-c", line]).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The shipped action on a router.
struct Block<'a> {
    net: &'a Net,
    action: &'a Action,
    params: Params,
}

fn catalogue() -> Catalogue {
    let (catalogue, wrong) = Catalogue::load(&[SourceFile { name: "block_ip.toml".into(), text: BLOCK_IP.into() }]);
    assert!(wrong.is_empty(), "{wrong:?}");
    catalogue
}

impl<'a> Block<'a> {
    fn new(net: &'a Net, catalogue: &'a Catalogue, ip: &str, duration: &str) -> Block<'a> {
        let action = catalogue.get("block_ip").unwrap();
        let params = action.params(json!({"ip": ip, "duration": duration}).as_object().unwrap()).unwrap();
        Block { net, action, params }
    }

    fn run(&self, op: Op) {
        for command in self.action.commands(op, Platform::OpenwrtFw4, &self.params).unwrap() {
            let result = self.net.command(&command);
            assert_eq!(result.status, Some(0), "{op:?}: {}", String::from_utf8_lossy(&result.stderr));
        }
    }

    fn read(&self) -> Readback {
        let verify = self.action.commands(Op::Verify, Platform::OpenwrtFw4, &self.params).unwrap();
        let results: Vec<CommandResult> = verify.iter().map(|command| self.net.command(command)).collect();
        self.action.check(Platform::OpenwrtFw4, &self.params, None, &results).unwrap()
    }
}

#[test]
fn a_block_ends_traffic_to_and_through_the_router_and_its_undo_lets_it_in() {
    let (net, catalogue) = (Net::new("block"), catalogue());
    for family in 0..2 {
        let block = Block::new(&net, &catalogue, ATTACKER[family], "1h");
        assert!(net.reaches("a", ROUTER[family]) && net.reaches("a", SERVER[family]), "before");
        assert_eq!(block.read().state, ReadbackState::Absent);
        block.run(Op::Apply);
        let read = block.read();
        assert_eq!(read.state, ReadbackState::Enforced, "{}", read.detail);
        assert!(read.expires_in.is_some_and(|left| left > Span::secs(3590) && left <= Span::secs(3600)), "{read:?}");
        assert!(!net.reaches("a", ROUTER[family]) && !net.reaches("a", SERVER[family]), "blocked");
        assert!(!net.reaches("s", ATTACKER[family]), "nothing is forwarded to it either");
        assert!(net.reaches("s", ROUTER[family]), "another host is not touched");
        block.run(Op::Undo);
        assert_eq!(block.read().state, ReadbackState::Absent);
        assert!(net.reaches("a", ROUTER[family]) && net.reaches("a", SERVER[family]), "let in again");
    }
}

#[test]
fn applying_again_changes_nothing_but_the_time() {
    let (net, catalogue) = (Net::new("again"), catalogue());
    let rules = || net.run("r", "nft list table inet opmas").matches(" drop").count();
    Block::new(&net, &catalogue, "203.0.113.8", "2m").run(Op::Apply);
    Block::new(&net, &catalogue, ATTACKER[0], "60s").run(Op::Apply);
    let before = rules();
    let longer = Block::new(&net, &catalogue, ATTACKER[0], "1h");
    assert_eq!(longer.read().state, ReadbackState::Partial, "it would end too early");
    longer.run(Op::Apply);
    longer.run(Op::Apply);
    assert_eq!((rules(), before), (6, 6));
    assert!(longer.read().expires_in.is_some_and(|left| left > Span::secs(3590)), "the time is set anew");
    assert_eq!(Block::new(&net, &catalogue, "203.0.113.8", "1m").read().state, ReadbackState::Enforced, "the other stays");
}

#[test]
fn what_others_do_to_the_table_is_seen_and_healed() {
    let (net, catalogue) = (Net::new("heal"), catalogue());
    let block = Block::new(&net, &catalogue, ATTACKER[0], "1h");
    let harm = [
        ("delete table inet opmas", ReadbackState::Absent),
        ("flush ruleset", ReadbackState::Absent),
        ("flush set inet opmas hosts4", ReadbackState::Absent),
        ("flush chain inet opmas input", ReadbackState::Partial),
        ("flush chain inet opmas forward; delete chain inet opmas forward", ReadbackState::Partial),
        ("insert rule inet opmas input accept", ReadbackState::Partial),
    ];
    for (script, wanted) in harm {
        block.run(Op::Apply);
        assert_eq!(block.read().state, ReadbackState::Enforced);
        net.run("r", &format!("nft '{script}'"));
        let read = block.read();
        assert_eq!(read.state, wanted, "{script}: {}", read.detail);
    }
    block.run(Op::Apply);
    assert_eq!(block.read().state, ReadbackState::Enforced);
    assert!(!net.reaches("a", ROUTER[0]));
}

#[test]
fn the_router_itself_ends_the_block_and_undoing_it_then_is_right_too() {
    let (net, catalogue) = (Net::new("end"), catalogue());
    let block = Block::new(&net, &catalogue, ATTACKER[0], "2s");
    block.run(Op::Apply);
    assert!(!net.reaches("a", ROUTER[0]));
    sleep(Duration::from_secs(3));
    assert_eq!(block.read().state, ReadbackState::Absent);
    assert!(net.reaches("a", ROUTER[0]));
    block.run(Op::Undo);
    net.run("r", "nft delete table inet opmas");
    block.run(Op::Undo);
    assert_eq!(block.read().state, ReadbackState::Absent);
}

#[test]
fn the_firewall_of_the_router_is_left_alone_and_leaves_ours_alone() {
    let (net, catalogue) = (Net::new("fw4"), catalogue());
    let fw4 = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openwrt-fw4-default.nft");
    // Its interfaces are not here, so that its drop policy is all that is left of it.
    net.run("r", &format!("nft -f {fw4}"));
    let before = net.run("r", "nft list table inet fw4");
    let block = Block::new(&net, &catalogue, ATTACKER[0], "1h");
    block.run(Op::Apply);
    net.run("r", &format!("nft -f {fw4}"));
    assert_eq!(block.read().state, ReadbackState::Enforced, "loading the firewall again changes nothing");
    assert_eq!(net.run("r", "nft list table inet fw4"), before);
}
