//! See the room of this name in `src`.

use opmas::diag::SourceFile;
use opmas::sigma::{Body, CorrelationType, Loaded, load};

fn files(texts: &[(&str, &str)]) -> Vec<SourceFile> {
    texts.iter().map(|(name, text)| SourceFile { name: (*name).into(), text: (*text).into() }).collect()
}

fn loaded(text: &str) -> Loaded {
    load(&files(&[("r.yml", text)]))
}

const SHIPPED: &str = include_str!("../../rules/openwrt/ssh.yml");

#[test]
fn the_shipped_rules_load() {
    let loaded = loaded(SHIPPED);
    assert_eq!(loaded.diagnostics, []);
    let set = loaded.set;
    let names: Vec<&str> = set.rules.iter().map(|r| r.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["openwrt_ssh_login_failed", "openwrt_ssh_login", "openwrt_ssh_bruteforce", "openwrt_ssh_login_after_failures"]);
    assert_eq!(set.order(), [2, 3]);
    assert_eq!(set.inputs(2), [0]);
    assert_eq!(set.inputs(3), [2, 1]);
    let silent: Vec<bool> = (0..4).map(|i| set.is_silent(i)).collect();
    assert_eq!(silent, [true, false, false, false]);
    let Body::Correlation(bruteforce) = &set.rules[2].body else { panic!() };
    assert_eq!(bruteforce.kind, CorrelationType::EventCount);
    assert_eq!(bruteforce.timespan.to_string(), "10m");
    assert_eq!(bruteforce.condition, [(opmas::sigma::Comparison::Gte, 6.0)]);
}
