//! NATS subjects and the filters over them: tokens between dots, `*` for one, `>` for all that follow.

/// Whether it is a subject to publish to: tokens without blanks and wildcards.
#[must_use]
pub fn is_subject(text: &str) -> bool {
    is_filter(text) && text.split('.').all(|token| token != "*" && token != ">")
}

/// Whether it is a filter over subjects.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    let plain = |token: &str| !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
    let last = text.split('.').count() - 1;
    text.split('.').enumerate().all(|(place, token)| plain(token) && (token != ">" || place == last))
}

/// Whether `wide` holds every subject that `narrow` holds; a subject is a filter that holds itself.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(token), Some(other)) if token == other => {}
            _ => return false,
        }
    }
}

/// Whether some subject is held by both.
#[must_use]
pub fn meets(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(token), Some(same)) if token == same => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_hold_subjects_and_filters() {
        for (wide, narrow) in [("logs.>", "logs.a"), ("logs.>", "logs.a.b"), ("logs.*", "logs.a"), (">", "logs"), ("logs.>", "logs.*"), ("logs.>", "logs.>")] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [("logs.>", "logs"), ("logs.*", "logs.a.b"), ("logs.*", "logs.>"), ("logs.a", "logs.*"), ("log", "logs")] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
        assert!(meets("logs.*.a", "logs.b.*") && meets("logs.a", "logs.>") && meets("*.a", "logs.a"));
        assert!(!meets("logs.a", "logs.b") && !meets("logs", "logs.>") && !meets("logs.*", "logs.a.b"));
    }

    #[test]
    fn what_is_a_filter() {
        assert!(is_filter("logs.>") && is_filter(">") && is_filter("a.*.b") && is_subject("logs.ap-1"));
        assert!(!is_filter("") && !is_filter("logs.") && !is_filter("a.>.b") && !is_filter("a b") && !is_subject("logs.*"));
    }
}
