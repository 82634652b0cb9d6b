//! Any text as a rule file: it loads or is refused with places; what loads can be evaluated and shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opmas::detect::{Detector, LogsourceMode, Scan};

fuzz_target!(|text: &str| {
    let set = opmas_fuzz::rules(text);
    let event = opmas_fuzz::event(r#"{"a":"b","CommandLine":"cmd /c whoami","n":5,"t":"2026-11-21T13:08:05Z"}"#.as_bytes());
    assert_eq!(Detector::new(&set).matches(&event, LogsourceMode::Any), Scan::new(&set).matches(&event, LogsourceMode::Any));
});
