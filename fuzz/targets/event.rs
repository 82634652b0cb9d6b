//! Any bytes as a JSON event, against rules with every kind of test: network and scan agree.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use opmas::detect::{Detector, LogsourceMode, Scan};

static RULES: LazyLock<(Detector, Scan)> = LazyLock::new(|| {
    let set = opmas_fuzz::rules(include_str!("../rules.yml"));
    assert_eq!(set.rules.len(), 4);
    (Detector::new(&set), Scan::new(&set))
});

fuzz_target!(|bytes: &[u8]| {
    let event = opmas_fuzz::event(bytes);
    for mode in [LogsourceMode::Derived, LogsourceMode::Event, LogsourceMode::Any] {
        assert_eq!(RULES.0.matches(&event, mode), RULES.1.matches(&event, mode));
    }
});
