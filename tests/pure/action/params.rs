//! The closed grammars of parameters.

use std::net::IpAddr;

use opmas::action::{Grammar, ParamError};
use opmas::model::Span;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{map, shipped};

fn duration() -> Grammar {
    Grammar::Duration { min: Span::secs(1), max: Span::secs(30 * 86_400) }
}

fn grammars() -> Vec<Grammar> {
    let words = vec!["on".to_owned(), "off".to_owned()];
    vec![
        Grammar::Ip,
        Grammar::Prefix,
        Grammar::Word { max: 16 },
        Grammar::Mac,
        Grammar::Interface,
        duration(),
        Grammar::Int { min: 0, max: 99 },
        Grammar::Enum(words),
    ]
}

#[test]
fn accepted_values_are_canonical() {
    let cases = [
        (Grammar::Ip, json!("203.0.113.9"), json!("203.0.113.9")),
        (Grammar::Ip, json!("2001:DB8:0:0::0001"), json!("2001:db8::1")),
        (Grammar::Ip, json!("::ffff:203.0.113.9"), json!("203.0.113.9")),
        (Grammar::Ip, json!("::FFFF:cb00:7109"), json!("203.0.113.9")),
        (Grammar::Prefix, json!("203.0.113.0/24"), json!("203.0.113.0/24")),
        (Grammar::Prefix, json!("2001:DB8::/32"), json!("2001:db8::/32")),
        (Grammar::Word { max: 9 }, json!("HT20"), json!("HT20")),
        (Grammar::Mac, json!("00-11-22-AA-BB-CC"), json!("00:11:22:aa:bb:cc")),
        (Grammar::Interface, json!("phy0-ap0.sta1"), json!("phy0-ap0.sta1")),
        (duration(), json!("60m"), json!("1h")),
        (duration(), json!("1w"), json!("7d")),
        (Grammar::Int { min: 0, max: 99 }, json!(7), json!(7)),
        (Grammar::Enum(vec!["on".into()]), json!("on"), json!("on")),
        (Grammar::Text { max: 9 }, json!("it's $x"), json!("it's $x")),
    ];
    for (grammar, given, canonical) in cases {
        let value = grammar.parse(&given).unwrap();
        assert_eq!(value.to_json(), canonical, "{given}");
        assert_eq!(grammar.parse(&canonical).unwrap(), value, "{canonical} is read back");
    }
}

#[test]
fn refused_values_are_refused() {
    let ips = [
        "",
        " 203.0.113.9",
        "203.0.113.9 ",
        "203.0.113.9\n",
        "203.0.113.9/32",
        "203.0.113",
        "203.0.113.009",
        "0xcb.0.113.9",
        "3405803785",
        "fe80::1%br-lan",
        "fe80::1%1",
        "[::1]",
        "::1/128",
        "203.0.113.9:22",
        "'; reboot; '",
        "$(reboot)",
        "203.0.113.9 } ; flush ruleset",
        "１.2.3.4",
        "localhost",
        "1.2.3.4\0",
    ];
    let macs = [
        "",
        "00:11:22:33:44",
        "00:11:22:33:44:55:66",
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
        "00:11-22:33:44:55",
        "0:11:22:33:44:555",
        "00:11:22:33:44:gg",
        "001122334455",
        "é0:11:22:33:44:55",
    ];
    let interfaces = ["", "-lan", ".", "..", "br lan", "br/lan", "abcdefghijklmnop", "a;b", "a\"b", "a:b", "ö"];
    let durations = ["", "0s", "00s", "01h", "1", "1.5h", "-1s", "+1s", "1M", "1y", "500ms", "1h30m", " 1h", "31d", "99999999999999999999s", "5h\n"];
    for (grammar, words) in [(Grammar::Ip, &ips[..]), (Grammar::Mac, &macs), (Grammar::Interface, &interfaces), (duration(), &durations)] {
        for word in words {
            assert!(grammar.parse(&json!(word)).is_err(), "{} takes {word:?}", grammar.word());
        }
    }
    for text in ["", "-n", "a\nb", "\u{7f}", "\u{202e}x", "0123456789"] {
        assert!(Grammar::Text { max: 9 }.parse(&json!(text)).is_err(), "{text:?}");
    }
    for grammar in grammars() {
        for value in [json!(null), json!(true), json!(["203.0.113.9"]), json!({}), json!(-1), json!(100), json!(1.5)] {
            assert!(grammar.parse(&value).is_err(), "{} takes {value}", grammar.word());
        }
    }
}

#[test]
fn defaults_are_filled_in_and_nothing_unknown_passes() {
    let catalogue = shipped();
    let action = catalogue.get("block_ip").unwrap();
    let params = action.params(&map(json!({"ip": "203.0.113.9"}))).unwrap();
    assert_eq!(Value::Object(params.to_json()), json!({"ip": "203.0.113.9", "duration": "1h"}));
    assert_eq!(action.params(&params.to_json()).unwrap(), params);
    assert_eq!((action.effect(&params).as_str(), action.lifetime(&params)), ("ip=203.0.113.9", Some(Span::secs(3600))));

    let error = action.params(&map(json!({"duration": "1h"}))).unwrap_err();
    assert!(matches!(&error, ParamError::Missing { param, .. } if param == "ip"), "{error}");
    let error = action.params(&map(json!({"ip": "203.0.113.9", "durations": "1h"}))).unwrap_err();
    assert_eq!(error.to_string(), "block_ip has no parameter `durations`; did you mean `duration`?");
    let error = action.params(&map(json!({"ip": "203.0.113.9\u{9b}31m; rm"}))).unwrap_err().to_string();
    assert!(error.starts_with("block_ip: `ip`: ") && !error.chars().any(char::is_control), "{error:?}");
}

fn is_harmless(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:_-".contains(&b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_a_closed_grammar_takes_is_free_of_syntax(text in "\\PC{0,20}|[0-9a-fA-F:.]{2,20}|[0-9]{1,6}[smhdwMy]{1,2}|[a-z0-9._;' \n$`{}@%/-]{0,18}") {
        for grammar in grammars() {
            if let Ok(value) = grammar.parse(&json!(text)) {
                prop_assert!(is_harmless(&value.to_string()), "{} takes {text:?} as {value}", grammar.word());
                prop_assert_eq!(grammar.parse(&value.to_json()).unwrap(), value);
            }
        }
    }

    #[test]
    fn every_address_is_taken_and_stays_the_same(v4 in any::<u32>(), v6 in any::<u128>()) {
        for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
            let value = Grammar::Ip.parse(&json!(ip.to_string())).unwrap();
            prop_assert_eq!(value.to_string(), ip.to_canonical().to_string());
        }
    }
}
