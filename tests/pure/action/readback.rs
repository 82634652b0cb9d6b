//! What `nft -j` prints, judged. The real nft is asked in the live suite; here is what it printed, taken apart piece by piece.

use opmas::action::{CommandResult, Op, Readback, ReadbackState, plan};
use opmas::model::{OutcomeState, Platform, Span};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{all, file, map, shipped};

fn rule(chain: &str, protocol: &str, side: &str, set: &str) -> Value {
    json!({"rule": {"family": "inet", "table": "opmas", "chain": chain, "handle": 11, "expr": [
        {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": side}}, "right": format!("@{set}")}},
        {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]}})
}

fn chain(name: &str) -> Value {
    json!({"chain": {"family": "inet", "table": "opmas", "name": name, "handle": 3, "type": "filter", "hook": name, "prio": -10, "policy": "accept"}})
}

fn set(name: &str, elements: Value) -> Value {
    json!({"set": {"family": "inet", "name": name, "table": "opmas", "type": "ipv4_addr", "handle": 1, "flags": ["timeout"], "elem": elements}})
}

fn element(ip: &str, expires: i64) -> Value {
    json!({"elem": {"val": ip, "timeout": 3600, "expires": expires}})
}

fn table() -> Value {
    json!({"table": {"family": "inet", "name": "opmas", "handle": 1}})
}

/// The whole table as nft 1.0.6 prints it after a block of 203.0.113.9.
fn whole() -> Vec<Value> {
    let mut all = vec![table(), set("hosts4", json!([element("203.0.113.8", 10), element("203.0.113.9", 3599)])), chain("input"), chain("forward")];
    for (protocol, name) in [("ip", "hosts4"), ("ip6", "hosts6")] {
        all.extend([rule("input", protocol, "saddr", name), rule("forward", protocol, "saddr", name), rule("forward", protocol, "daddr", name)]);
    }
    all
}

fn listing(objects: &[Value]) -> CommandResult {
    let mut items = vec![json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}})];
    items.extend_from_slice(objects);
    CommandResult { status: Some(0), stdout: json!({"nftables": items}).to_string().into_bytes(), ..CommandResult::default() }
}

/// Tables and flowtables, as one nft prints both.
fn tables(tables: &[Value], flowtables: &[Value]) -> CommandResult {
    let (first, second) = (listing(tables), listing(flowtables));
    CommandResult { stdout: [first.stdout, b"\n".to_vec(), second.stdout].concat(), status: Some(0), ..CommandResult::default() }
}

fn judge(ip: &str, results: &[CommandResult]) -> Readback {
    let catalogue = shipped();
    let action = catalogue.get("block_ip").unwrap();
    let params = action.params(&map(json!({"ip": ip, "duration": "1h"}))).unwrap();
    action.check(Platform::OpenwrtFw4, &params, None, results).unwrap()
}

fn block(ip: &str, table: &[Value]) -> Readback {
    judge(ip, &[tables(&[self::table()], &[]), listing(table)])
}

#[test]
fn a_whole_block_is_enforced() {
    let read = block("203.0.113.9", &whole());
    assert_eq!((read.state, read.expires_in), (ReadbackState::Enforced, Some(Span::secs(3599))));
    assert_eq!(read.detail, "203.0.113.9 is in set hosts4, and the rules of forward and input look it up");
    assert_eq!(read.outcome(Op::Apply), OutcomeState::Enforced);
    assert_eq!(read.outcome(Op::Undo), OutcomeState::Failed, "it should be gone");
}

#[test]
fn an_address_is_the_same_in_every_spelling() {
    let mut table = whole();
    table.push(set("hosts6", json!(["2001:DB8:0::9", {"elem": {"val": "2001:db8::a", "timeout": 3600, "expires": 3590}}])));
    assert_eq!((block("2001:db8::9", &table).state, block("2001:db8::9", &table).expires_in), (ReadbackState::Enforced, None), "one without end");
    assert_eq!(block("2001:db8::a", &table).state, ReadbackState::Enforced);
    assert_eq!(block("2001:db8::b", &table).state, ReadbackState::Absent);
}

#[test]
fn absence_is_told_from_not_knowing() {
    let failed =
        CommandResult { status: Some(1), stdout: Vec::new(), stderr: b"Error: No such file or directory\nlist table inet opmas\n".to_vec(), cut: None };
    let no_table = judge("203.0.113.9", &[tables(&[], &[]), failed.clone()]);
    assert_eq!((no_table.state, no_table.outcome(Op::Undo), no_table.outcome(Op::Apply)), (ReadbackState::Absent, OutcomeState::Undone, OutcomeState::Failed));
    let unreadable = judge("203.0.113.9", &[tables(&[table()], &[]), failed.clone()]);
    assert_eq!(unreadable.state, ReadbackState::Unknown);
    assert_eq!(unreadable.detail, "`nft -j list table inet opmas` ended with 1 on the device and said: Error: No such file or directory");
    let other = json!({"table": {"family": "ip", "name": "opmas"}});
    assert_eq!(judge("203.0.113.9", &[tables(&[other], &[]), failed.clone()]).state, ReadbackState::Absent, "another family's table is not ours");
    let good = || vec![tables(&[table()], &[]), listing(&whole())];
    for at in 0..2 {
        for bad in [
            CommandResult::default(),
            failed.clone(),
            CommandResult { status: Some(0), stdout: b"{\"nftables\": [".to_vec(), ..CommandResult::default() },
            CommandResult { status: Some(0), stdout: b"[]".to_vec(), ..CommandResult::default() },
            CommandResult { status: Some(0), ..CommandResult::default() },
            CommandResult { cut: Some(9), ..listing(&whole()) },
        ] {
            let mut results = good();
            results[at] = bad;
            assert_eq!(judge("203.0.113.9", &results).state, ReadbackState::Unknown, "{at}");
        }
    }
    assert_eq!(judge("203.0.113.9", &good()[..1]).state, ReadbackState::Unknown);
}

#[test]
fn a_listing_that_is_none_is_told_as_it_is_known_bounded_and_without_what_acts_on_a_terminal() {
    let said = |bad: CommandResult| judge("203.0.113.9", &[bad, listing(&whole())]).detail;
    let printed = |text: &str| CommandResult { status: Some(0), stdout: text.into(), ..CommandResult::default() };
    for (bad, words) in [
        (printed(" \n"), "`nft -j list tables; list flowtables` printed nothing"),
        (CommandResult { cut: Some(1_048_576), ..printed("yyy") }, "`nft -j list tables; list flowtables` printed more than 1048576 bytes"),
        (
            CommandResult::without_end("did not end within 10 s, its limit".to_owned()),
            "`nft -j list tables; list flowtables` did not end within 10 s, its limit",
        ),
        (
            listing(&[table()]),
            "`nft -j list tables; list flowtables` printed something that is not a listing in JSON: `{\"nftables\":[{\"metainfo\":{\"json_schema_version\":1,\"version\":…`",
        ),
        (printed("\u{1b}[31mred"), r"`nft -j list tables; list flowtables` printed something that is not a listing in JSON: `\u{1b}[31mred`"),
    ] {
        assert_eq!(said(bad), words);
    }
    assert!(said(printed(&"x".repeat(100_000))).len() < 200);
}

#[test]
fn each_missing_piece_makes_it_partial_and_is_named() {
    let pieces = [
        (2, "chain input is missing"),
        (3, "chain forward is missing"),
        (4, "chain input does not have `ip saddr @hosts4 drop`"),
        (5, "chain forward does not have `ip saddr @hosts4 drop`"),
        (6, "chain forward does not have `ip daddr @hosts4 drop`"),
    ];
    for (piece, wanted) in pieces {
        let mut table = whole();
        table.remove(piece);
        let read = block("203.0.113.9", &table);
        assert_eq!(read.state, ReadbackState::Partial, "{wanted}");
        assert!(read.detail.contains(wanted), "{}", read.detail);
    }
    let mut without_v6 = whole();
    without_v6.truncate(7);
    assert_eq!(block("203.0.113.9", &without_v6).state, ReadbackState::Enforced, "the other family's rules do not matter");
}

#[test]
fn whatever_weakens_a_block_makes_it_partial() {
    let with = |piece: usize, path: &str, value: Value| {
        let mut table = whole();
        *table[piece].pointer_mut(path).unwrap() = value;
        block("203.0.113.9", &table)
    };
    let reads = [
        (with(2, "/chain/prio", json!(0)), "chain input is not a filter chain at hook input, priority -10"),
        (with(3, "/chain/hook", json!("output")), "chain forward is not a filter chain at hook forward"),
        (with(4, "/rule/expr/2", json!({"accept": null})), "chain input has a rule that opmas did not put there"),
        (with(4, "/rule/expr/1", json!({"limit": {"rate": 1}})), "chain input does not have"),
        (with(4, "/rule/expr/0/match/op", json!("!=")), "chain input does not have"),
        (with(0, "/table", json!({"family": "inet", "name": "opmas", "flags": ["dormant"]})), "table inet opmas is dormant"),
        (with(1, "/set/elem/1/elem/expires", json!(60)), "the device will end it earlier than asked"),
    ];
    for (read, wanted) in reads {
        assert_eq!(read.state, ReadbackState::Partial, "{wanted}");
        assert!(read.detail.contains(wanted), "{}", read.detail);
    }
    let flowtable =
        json!({"flowtable": {"family": "inet", "name": "ft", "table": "fw4", "handle": 2, "hook": "ingress", "prio": 0, "dev": ["br-lan", "eth1"]}});
    let read = judge("203.0.113.9", &[tables(&[table()], &[flowtable]), listing(&whole())]);
    assert_eq!((read.state, read.outcome(Op::Apply)), (ReadbackState::Partial, OutcomeState::Partial));
    assert!(read.detail.ends_with("but flow offloading is on, and packets of offloaded connections pass no forward chain"), "{}", read.detail);
}

#[test]
fn a_plan_shows_the_exact_commands_and_how_they_are_undone() {
    let catalogue = shipped();
    let action = catalogue.get("block_ip").unwrap();
    let params = action.params(&map(json!({"ip": "203.0.113.9", "duration": "1h"}))).unwrap();
    let shown = plan(action, Platform::OpenwrtFw4, &params).unwrap();
    assert_eq!(shown.commands, [["nft", "-f", "-"]]);
    assert!(shown.stdin[0].as_ref().unwrap().contains("{ 203.0.113.9 timeout 3600s }"));
    let undo = shown.undo.unwrap();
    assert_eq!((undo.len(), undo[0].argv.as_slice()), (1, &["nft".to_owned(), "-f".to_owned(), "-".to_owned()][..]));
    assert!(undo[0].stdin.as_ref().unwrap().ends_with("delete element inet opmas hosts4 { 203.0.113.9 }\n"));
}

proptest! {
    #[test]
    fn anything_that_a_device_prints_gets_an_answer(cut in 0usize..3000, junk in "\\PC{0,40}") {
        let mut stdout = listing(&whole()).stdout;
        stdout.truncate(cut);
        stdout.extend_from_slice(junk.as_bytes());
        let read = judge("203.0.113.9", &[tables(&[table()], &[]), CommandResult { status: Some(0), stdout, ..CommandResult::default() }]);
        prop_assert!(!read.detail.is_empty());
        prop_assert!(read.state == ReadbackState::Unknown || cut >= listing(&whole()).stdout.len());
    }
}

fn judge_as(action: &str, params: Value, results: &[CommandResult]) -> Readback {
    let catalogue = all();
    let action = catalogue.get(action).unwrap();
    action.check(Platform::OpenwrtFw4, &action.params(&map(params)).unwrap(), None, results).unwrap()
}

#[test]
fn an_address_inside_a_blocked_network_is_let_in_only_partly() {
    let read = |table: &[Value]| judge_as("unblock_ip", json!({"ip": "203.0.113.9"}), &[tables(&[self::table()], &[]), listing(table)]);
    assert_eq!(read(&whole()).state, ReadbackState::Absent, "it is still blocked");
    assert_eq!(read(&[table(), set("hosts4", json!([element("203.0.113.8", 10)]))]).state, ReadbackState::Enforced);
    let around = read(&[table(), set("nets4_24", json!([element("203.0.113.0", 10)])), set("nets4_30", json!([element("203.0.113.0", 10)]))]);
    assert_eq!((around.state, around.detail.as_str()), (ReadbackState::Partial, "203.0.113.9 is not in set hosts4, but the network 203.0.113.0/24 is blocked"));
    assert_eq!(judge_as("unblock_ip", json!({"ip": "203.0.113.9"}), &[tables(&[], &[]), CommandResult::default()]).state, ReadbackState::Enforced);
}

fn json_action(check: &str, verify: usize) -> Result<opmas::action::Catalogue, String> {
    let verify = "[[platform.openwrt-fw4.verify]]\nargv = ['true']\n".repeat(verify);
    let text = format!(
        "title='t'\nrisk='low'\nassumed='enforced'\nidempotence=[]\n[params.mac]\ntype='mac'\n[platform.openwrt-fw4]\nno_undo='x'\ncheck = {check}\n{verify}"
    );
    match opmas::action::Catalogue::load(&[file("j.toml", &text)]) {
        (catalogue, wrong) if wrong.is_empty() => Ok(catalogue),
        (_, wrong) => Err(wrong[0].to_string()),
    }
}

#[test]
fn json_is_judged_value_by_value() {
    let catalogue = json_action("{ json = [{ path = 'clients', has = '${mac}' }, { of = 1, path = '*.up', is = 'true' }] }", 2).unwrap();
    let action = catalogue.get("j").unwrap();
    let params = action.params(&map(json!({"mac": "00:11:22:AA:BB:CC"}))).unwrap();
    let read = |first: &str, second: &str| {
        let results = [first, second].map(|text| CommandResult { status: Some(0), stdout: text.into(), ..CommandResult::default() });
        action.check(Platform::OpenwrtFw4, &params, None, &results).unwrap()
    };
    let (there, up) = (r#"{"clients":["00:11:22:aa:bb:cc"]}"#, r#"{"radio0":{"up":true},"radio1":{"up":true}}"#);
    assert_eq!(read(there, up).state, ReadbackState::Enforced);
    assert_eq!(read(&format!("{there}\n{there}"), up).state, ReadbackState::Enforced);
    assert_eq!(read(r#"{"clients":{"00:11:22:AA:bb:cc":{}}}"#, up).state, ReadbackState::Enforced, "the keys of an object, too");
    let partly = read(&format!("{there}\n{{\"clients\":[]}}"), up);
    assert_eq!((partly.state, partly.detail.as_str()), (ReadbackState::Partial, "`clients` has no 00:11:22:aa:bb:cc; the rest is as it should be"));
    assert_eq!(read("{}", r#"{"radio0":{"up":false}}"#).state, ReadbackState::Absent);
    assert_eq!(read("", "").detail, "nothing there answers");
    assert_eq!(read("{\"clients\":", up).state, ReadbackState::Unknown);
    let failed = CommandResult { status: Some(4), stdout: Vec::new(), stderr: b"Command failed: Not found\n".to_vec(), cut: None };
    let unknown = action.check(Platform::OpenwrtFw4, &params, None, &[failed.clone(), failed]).unwrap();
    assert_eq!(unknown.detail, "a command that reads ended with 4 on the device and said: Command failed: Not found");
    assert!(json_action("{ json = [{ path = 'a', is = 'x', has = 'y' }] }", 1).unwrap_err().contains("one of them"));
    assert!(json_action("{ json = [{ of = 3, path = 'a', is = 'x' }] }", 1).unwrap_err().contains("reads the output of 4 to 16 commands"));
}

#[test]
fn what_must_change_is_compared_with_what_was_there() {
    let catalogue = json_action("{ prints = [''] }\nchanges = true", 1).unwrap();
    let action = catalogue.get("j").unwrap();
    let params = action.params(&map(json!({"mac": "00:11:22:aa:bb:cc"}))).unwrap();
    let said = |text: &str| [CommandResult { status: Some(0), stdout: text.into(), ..CommandResult::default() }];
    let state = |before: Option<&[CommandResult]>| action.check(Platform::OpenwrtFw4, &params, before, &said("b")).unwrap().state;
    assert_eq!(state(Some(&said("a"))), ReadbackState::Enforced);
    assert_eq!(state(Some(&said("b"))), ReadbackState::Absent);
    assert_eq!(state(None), ReadbackState::Unknown, "after a crash nobody knows how it was");
}
