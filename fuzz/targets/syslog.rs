//! Any bytes as a log line: an event comes of it, that can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let event = opmas_fuzz::event(bytes);
    let written = serde_json::to_string(&event.fields).unwrap_or_default();
    assert_eq!(serde_json::from_str::<serde_json::Map<_, _>>(&written).ok(), Some(event.fields));
});
