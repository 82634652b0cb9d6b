//! Standard Webhooks: the published example, and what a secret must look like.

use opmas::alert::webhook::{KeyError, SigningKey, signature};
use opmas::alert::{MAX_RETRY_AFTER, retry_after};
use opmas::model::{Span, Time};
use opmas::secret::Secret;
use proptest::prelude::*;

const EXAMPLE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn the_published_example() {
    let key = SigningKey::parse(&Secret::new(EXAMPLE)).unwrap();
    let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_secret_prints_as_nothing() {
    let secret = Secret::new("hunter2-hunter2\n");
    assert_eq!(format!("{secret:?}"), "[secret]");
    assert_eq!(secret.expose(), "hunter2-hunter2");
    assert_eq!(secret.redact("535 bad hunter2-hunter2!"), "535 bad [secret]!");
    assert_eq!(format!("{:?}", SigningKey::parse(&Secret::new(EXAMPLE)).unwrap()), "[secret]");
}

#[test]
fn what_is_no_signing_secret() {
    let parse = |text: &str| SigningKey::parse(&Secret::new(text)).map(drop);
    assert_eq!(parse(EXAMPLE), Ok(()));
    assert_eq!(parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Err(KeyError::Form));
    assert_eq!(parse("whsec_?"), Err(KeyError::Form));
    assert_eq!(parse("whsec_QUJD"), Err(KeyError::Length(3)));
    assert_eq!(parse(&format!("whsec_{}", "QUJD".repeat(22))), Err(KeyError::Length(66)));
}

#[test]
fn retry_after_is_seconds_or_a_date_and_bounded() {
    let now = Time::parse_rfc3339("2026-11-21T13:00:00Z").unwrap();
    let cases = [
        ("120", Some(Span::secs(120))),
        (" 0 ", Some(Span::ZERO)),
        ("Sat, 21 Nov 2026 13:01:30 GMT", Some(Span::secs(90))),
        ("Sat, 21 Nov 2026 12:00:00 GMT", Some(Span::ZERO)),
        ("Mon, 21 Nov 2050 12:00:00 GMT", Some(MAX_RETRY_AFTER)),
        ("999999999999999999999999", Some(MAX_RETRY_AFTER)),
        ("-5", None),
        ("soon", None),
        ("", None),
    ];
    for (header, expected) in cases {
        assert_eq!(retry_after(header, now), expected, "{header}");
    }
}

proptest! {
    #[test]
    fn no_header_makes_retry_after_panic_or_unbounded(header in "\\PC{0,40}") {
        prop_assert!(retry_after(&header, Time(0)).is_none_or(|wait| wait >= Span::ZERO && wait <= MAX_RETRY_AFTER));
    }
}
