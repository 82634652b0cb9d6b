//! What a person reads: everything of the finding, and nothing that acts.

use std::sync::Arc;

use opmas::alert::{Notice, bounded, delivery_id, render_html, render_text, subject, visible};
use opmas::model::{Entity, EntityKind, Finding, FindingId, Severity, Time};
use proptest::prelude::*;

use super::finding;

fn notice(finding: Finding) -> Notice {
    Notice::of_findings(vec![Arc::new(finding)], "urgent", "email", Time(0), vec!["block_ip on router1: enforced until 14:08".into()])
}

/// The finding with one hostile text in every field that a log line can reach.
fn hostile(text: &str) -> Finding {
    let mut finding = finding();
    let arc: Arc<str> = text.into();
    finding.title = arc.clone();
    finding.text = text.into();
    finding.rule.name = Some(arc.clone());
    finding.rule.revision = arc.clone();
    finding.device = Some(arc.clone());
    finding.site = Some(arc.clone());
    finding.group = [(text.to_owned(), serde_json::json!(text)), ("n".to_owned(), serde_json::json!([text]))].into();
    finding.entities = [(text.to_owned(), Entity { kind: EntityKind::User, value: arc.clone() })].into();
    finding.value = Some(serde_json::json!(text));
    finding.tags = vec![arc.clone(); 3];
    finding.remediation = Some(arc.clone());
    finding.id = FindingId(arc.clone());
    for evidence in &mut finding.evidence {
        evidence.raw = arc.clone();
        evidence.source = arc.clone();
    }
    finding
}

#[test]
fn the_text_says_what_happened_to_what_and_what_to_do() {
    let expected = "\
critical (5 of 5): SSH login after repeated failures
  203.0.113.9 failed 6 times and then logged in as root.
  When      2026-11-21 13:08:12 UTC (events from 2026-11-21 13:01:02 UTC to 2026-11-21 13:08:12 UTC)
  Device    router1, site home
  About     source: address 203.0.113.9
  About     user: user root
  Group     src_ip = 203.0.113.9
  Value     6
  Rule      openwrt_ssh_login_after_failures, revision 3f2a9c1d4b5e
  Tags      attack.t1110, attack.credential_access
  Trust     verified sources
  Finding   0f4b5d2c7a1e4c3f9b8a6d5e4f3c2b1a

Evidence: 2 of 7 events
    | 13:01:02 <36>Nov 21 13:01:02 router1 dropbear[812]: Bad password attempt for 'root' from 203.0.113.9:48629
    | 13:08:12 <37>Nov 21 13:08:12 router1 dropbear[830]: Password auth succeeded for 'root' from 203.0.113.9:48630

What to do
  Change the password.
  Allow keys only.

What was done
  block_ip on router1: enforced until 14:08

About this message
  Route     urgent
  Channel   email
  Delivery  d1
";
    assert_eq!(render_text(&notice(finding()), "d1"), expected);
    assert_eq!(subject(&notice(finding())), "[opmas] critical: SSH login after repeated failures (router1)");
}

#[test]
fn the_html_says_the_same() {
    let html = render_html(&notice(finding()), "d1");
    for said in
        ["203.0.113.9 failed 6 times", "Password auth succeeded for &#39;root&#39;", "&lt;36&gt;Nov 21", "Allow keys only.", "enforced until 14:08", "d1"]
    {
        assert!(html.contains(said), "{said}");
    }
}

#[test]
fn a_resolved_alert_says_so_and_is_the_same_alert() {
    let firing = notice(finding());
    let resolved = firing.clone().resolved(Time::parse_rfc3339("2026-11-21T14:08:12Z").unwrap(), Some("C1/1.2".into()));
    assert_eq!(resolved.alert.key(), firing.alert.key());
    assert_eq!(firing.alert.key(), delivery_id(&finding().id, "urgent", "email"), "the id of the alert's first delivery");
    assert_eq!(subject(&resolved), "[opmas] resolved: SSH login after repeated failures (router1)");
    assert!(render_text(&resolved, "d2").starts_with("Resolved\n  This is over since 2026-11-21 14:08:12 UTC. It told of:\n\ncritical (5 of 5)"));
    assert_eq!(serde_json::to_value(&resolved.alert).unwrap()["state"], "resolved");
}

#[test]
fn a_test_message_says_that_it_is_one() {
    let test = Notice::test("email", Time(0));
    assert_eq!(subject(&test), "[opmas] test of channel email");
    assert!(render_text(&test, "d1").starts_with("Test message\n  This is a test of the opmas channel `email`. Nothing was found"));
    assert_eq!(test.severity(), Severity::Info);
}

#[test]
fn characters_that_act_are_made_visible() {
    assert_eq!(visible("a\r\nBcc: x\0\u{1b}[31m\tb", 99), "a\\r\\nBcc: x\\u{0}\\u{1b}[31m\\tb");
    assert_eq!(visible("moc.\u{202e}elgoog \u{200b}\u{feff}\u{2028}\u{85}", 99), "moc.\\u{202e}elgoog \\u{200b}\\u{feff}\\u{2028}\\u{85}");
    assert_eq!(visible("grün 日本 👍 \\n", 99), "grün 日本 👍 \\n");
    assert_eq!(visible("abcdef", 3), "abc…");
    assert_eq!(visible("abc", 3), "abc");
    assert_eq!(bounded("grün", 3), "gr");
}

#[test]
fn markup_in_any_field_is_text() {
    let html = render_html(&notice(hostile("</pre><script>alert('1')</script><img src=x onerror=\"y\">&amp;")), "d1");
    assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("onerror=\""), "{html}");
    assert!(html.contains("&lt;/pre&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&lt;img src=x onerror=&quot;y&quot;&gt;&amp;amp;"));
    // Only the tags of the page itself.
    let tags: Vec<&str> = html.split('<').skip(1).map(|rest| rest.split(['>', ' ']).next().unwrap()).collect();
    let known = [
        "!DOCTYPE", "html", "head", "meta", "title", "/title", "/head", "body", "h3", "/h3", "div", "b", "/b", "/div", "p", "/p", "pre", "/pre", "/body",
        "/html",
    ];
    assert!(tags.iter().all(|tag| known.contains(tag)), "{tags:?}");
}

#[test]
fn long_values_are_bounded() {
    let notice = notice(hostile(&"<".repeat(100_000)));
    assert!(subject(&notice).chars().count() < 200);
    assert!(render_text(&notice, "d1").len() < 30_000);
    assert!(render_html(&notice, "d1").len() < 100_000);
    let many = Notice { findings: std::iter::repeat_n(Arc::new(hostile(&"é".repeat(100_000))), 1_000).collect(), ..notice };
    assert!(render_text(&many, "d1").contains("And 990 more findings"));
    assert!(render_html(&many, "d1").len() < 1_000_000);
}

proptest! {
    /// No text that a log line can hold adds a line to a message or leaves a control character in it.
    #[test]
    fn no_text_adds_a_line_or_a_control_character(text in any::<String>()) {
        let lines = |text: &str| render_text(&notice(hostile(text)), "d1").lines().count();
        // The owner's remediation and the rule's text keep their line ends; they are set aside here.
        let one_line: String = text.split(['\n', '\r']).collect::<Vec<_>>().join("|");
        let plain = if one_line.trim().is_empty() { " " } else { "x" };
        prop_assert_eq!(lines(&one_line), lines(plain));
        let notice = notice(hostile(&text));
        prop_assert!(!subject(&notice).chars().any(char::is_control));
        prop_assert!(!render_text(&notice, "d1").chars().any(|c| c.is_control() && c != '\n'));
        prop_assert!(!render_html(&notice, "d1").chars().any(|c| c.is_control() && c != '\n'));
    }

    /// An id is stable, and tells finding, route and channel apart however their texts are cut.
    #[test]
    fn delivery_ids_are_stable_and_apart(a in "[a-z]{0,4}", b in "[a-z]{0,4}", c in "[a-z]{0,4}", x in "[a-z]{0,4}", y in "[a-z]{0,4}", z in "[a-z]{0,4}") {
        let id = |a: &str, b: &str, c: &str| delivery_id(&FindingId(a.into()), b, c);
        prop_assert_eq!(id(&a, &b, &c) == id(&x, &y, &z), (&a, &b, &c) == (&x, &y, &z));
        prop_assert!(id(&a, &b, &c).len() == 32 && id(&a, &b, &c).bytes().all(|b| b.is_ascii_hexdigit()));
    }
}

/// Ids are in the ledger and are idempotency keys on other machines: they never change.
#[test]
fn a_delivery_id_is_what_it_was() {
    let digest =
        "printf '\\0\\0\\0\\0\\0\\0\\0\\010delivery\\0\\0\\0\\0\\0\\0\\0\\01f\\0\\0\\0\\0\\0\\0\\0\\01r\\0\\0\\0\\0\\0\\0\\0\\01c' | sha256sum | cut -c1-32";
    assert_eq!(&*delivery_id(&FindingId("f".into()), "r", "c"), "a2f4295ad7586cf0dc7702937562d0ed", "{digest}");
}
