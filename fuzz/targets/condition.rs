//! Any text as the condition over three searches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use opmas::detect::{Detector, LogsourceMode, Scan};

fuzz_target!(|text: &str| {
    let condition = serde_json::to_string(text).unwrap_or_default();
    let set = opmas_fuzz::rules(&format!(
        "title: t\nlogsource: {{}}\ndetection:\n  sel_a: {{a: 1}}\n  sel_b: {{b: '*x'}}\n  _own: {{c: null}}\n  condition: {condition}\n"
    ));
    for line in ["{}", r#"{"a":1}"#, r#"{"a":1,"b":"x","c":2}"#] {
        let event = opmas_fuzz::event(line.as_bytes());
        assert_eq!(Detector::new(&set).matches(&event, LogsourceMode::Any), Scan::new(&set).matches(&event, LogsourceMode::Any));
    }
});
