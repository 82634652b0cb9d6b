//! What `ipset` and `iptables` print, judged. The real ones are asked in the live suite; here is what they printed, taken apart.

use opmas::action::{CommandResult, Readback, ReadbackState};
use opmas::model::{Platform, Span};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{all, map};

const NAMES: &str = "opmas_hosts4\nopmas_hosts6\nopmas_nets4\nopmas_nets6\n";
const HOSTS: &str = "create opmas_hosts4 hash:ip family inet hashsize 1024 maxelem 65536 timeout 3600 bucketsize 12 initval 0x0d9e976f\n\
    add opmas_hosts4 203.0.113.8 timeout 10\nadd opmas_hosts4 203.0.113.9 timeout 3599\n";
const NETS: &str = "create opmas_nets4 hash:net family inet hashsize 1024 maxelem 65536 timeout 3600\nadd opmas_nets4 203.0.113.0/28 timeout 29\n";
const RULES: &str = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-N opmas_forward\n-N opmas_input\n-N opmas_input_slow_9\n\
    -A INPUT -j opmas_input_slow_9\n-A INPUT -j opmas_input\n-A INPUT -i eth1 -j ACCEPT\n-A FORWARD -j opmas_forward\n\
    -A opmas_forward -m set --match-set opmas_hosts4 src -j DROP\n-A opmas_forward -m set --match-set opmas_hosts4 dst -j DROP\n\
    -A opmas_input -m set --match-set opmas_hosts4 src -j DROP\n-A opmas_input -m set --match-set opmas_nets4 src -j DROP\n";

fn said(stdout: &str) -> CommandResult {
    CommandResult { status: Some(0), stdout: stdout.as_bytes().to_vec(), ..CommandResult::default() }
}

fn failed(status: i32) -> CommandResult {
    CommandResult { status: Some(status), stdout: Vec::new(), stderr: b"ipset v7.6: no\n".to_vec(), cut: None }
}

fn judge(action: &str, params: Value, results: &[CommandResult]) -> Readback {
    let catalogue = all();
    let action = catalogue.get(action).unwrap();
    action.check(Platform::OpenwrtFw3, &action.params(&map(params)).unwrap(), None, results).unwrap()
}

fn block(rules: &str, offloaded: &str) -> Readback {
    judge("block_ip", json!({"ip": "203.0.113.9"}), &[said(NAMES), said(HOSTS), said(rules), said(offloaded)])
}

#[test]
fn a_whole_block_is_enforced_and_each_missing_or_foreign_piece_is_named() {
    let read = block(RULES, "");
    assert_eq!((read.state, read.expires_in), (ReadbackState::Enforced, Some(Span::secs(3599))), "{}", read.detail);
    for (rules, wanted) in [
        (RULES.replace("-A INPUT -j opmas_input\n", ""), "chain INPUT of table mangle does not begin with opmas_input"),
        (RULES.replace("-A INPUT -j opmas_input_", "-A INPUT -j ACCEPT\n-A INPUT -j opmas_input_"), "chain INPUT of table mangle does not begin with"),
        (RULES.replace("-A FORWARD -j opmas_forward", "-A FORWARD -s 10.0.0.0/8 -j opmas_forward"), "chain FORWARD of table mangle does not begin"),
        (
            RULES.replace("opmas_hosts4 dst -j DROP", "opmas_hosts4 dst -j LOG"),
            "chain opmas_forward does not have `-m set --match-set opmas_hosts4 dst -j DROP`",
        ),
        (
            RULES.replace("-A opmas_input -m set --match-set opmas_hosts4 src", "-A opmas_input -j RETURN\n-A opmas_input -m set --match-set opmas_hosts4 src"),
            "that opmas did not put there",
        ),
    ] {
        let read = block(&rules, "");
        assert!(read.state == ReadbackState::Partial && read.detail.contains(wanted), "{}", read.detail);
    }
    let read = block(RULES, "offloading\n");
    assert!(read.state == ReadbackState::Partial && read.detail.contains("flow offloading is on"), "{}", read.detail);
}

#[test]
fn absence_is_told_from_not_knowing() {
    let one = |results: &[CommandResult]| judge("block_ip", json!({"ip": "203.0.113.9"}), results).state;
    assert_eq!(one(&[said(""), failed(1), said(RULES), said("")]), ReadbackState::Absent);
    assert_eq!(one(&[said(NAMES), said(&HOSTS.replace("203.0.113.9", "203.0.113.7")), said(RULES), said("")]), ReadbackState::Absent);
    for at in 0..4 {
        // Where nothing is offloaded nothing is printed, and where there are no sets.
        let garbage = (at < 3).then(|| said("no such thing\u{1b}[2J"));
        let nothing = (at == 1 || at == 2).then(|| said(""));
        let unread = [failed(1), CommandResult::default(), CommandResult { cut: Some(9), ..said(HOSTS) }];
        for bad in unread.into_iter().chain(garbage).chain(nothing) {
            let mut results = vec![said(NAMES), said(HOSTS), said(RULES), said("")];
            results[at] = bad;
            assert_eq!(one(&results), ReadbackState::Unknown, "{at}");
        }
    }
    assert_eq!(one(&[said(NAMES), said(HOSTS)]), ReadbackState::Unknown);
}

#[test]
fn a_lifetime_is_what_was_asked_for_or_half_of_what_a_set_can_keep() {
    let left = |asked: &str, left: i64| {
        let hosts = format!("create opmas_hosts4 hash:ip family inet\nadd opmas_hosts4 203.0.113.9 timeout {left}\n");
        judge("block_ip", json!({"ip": "203.0.113.9", "duration": asked}), &[said(NAMES), said(&hosts), said(RULES), said("")]).state
    };
    assert_eq!((left("1h", 3571), left("1h", 3569)), (ReadbackState::Enforced, ReadbackState::Partial));
    assert_eq!((left("30d", 13 * 86_400), left("30d", 11 * 86_400)), (ReadbackState::Enforced, ReadbackState::Partial));
    assert_eq!((left("24d", 13 * 86_400), left("1h", 0)), (ReadbackState::Partial, ReadbackState::Enforced));
}

#[test]
fn letting_in_looks_for_the_networks_around() {
    let free = |ip: &str, nets: CommandResult| judge("unblock_ip", json!({"ip": ip}), &[said(NAMES), said(HOSTS), nets]);
    assert_eq!(free("203.0.113.9", said(NETS)).state, ReadbackState::Absent);
    let around = free("203.0.113.10", said(NETS));
    assert!(around.state == ReadbackState::Partial && around.detail.contains("203.0.113.0/28"), "{}", around.detail);
    assert_eq!(free("203.0.113.77", said(NETS)).state, ReadbackState::Enforced);
    assert_eq!(free("203.0.113.77", failed(1)).state, ReadbackState::Unknown);
}

proptest! {
    #[test]
    fn anything_that_a_device_prints_gets_an_answer(cut in 0usize..900, junk in "\\PC{0,40}") {
        let texts = [NAMES, HOSTS, RULES, ""].map(|text| format!("{}{junk}", text.get(..cut.min(text.len())).unwrap_or_default()));
        let read = judge("block_ip", json!({"ip": "203.0.113.9"}), &texts.map(|text| said(&text)));
        prop_assert!(!read.detail.is_empty());
    }
}
