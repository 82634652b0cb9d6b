//! Which topics are meant, and what their messages are.

use regex::Regex;

use crate::model::Payload;

/// The topics of a source: names, and regular expressions that begin with `^`.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    names: Vec<(String, Payload)>,
    patterns: Vec<(Regex, Payload)>,
}

impl Topics {
    /// Fails with a sentence when one is neither a name nor a regular expression.
    pub(super) fn new(logs: &[String], findings: &[String]) -> Result<Topics, String> {
        let mut topics = Topics { names: Vec::new(), patterns: Vec::new() };
        let all = findings.iter().map(|topic| (topic, Payload::Finding)).chain(logs.iter().map(|topic| (topic, Payload::Log)));
        for (topic, payload) in all {
            if topic.starts_with('^') {
                let pattern = Regex::new(topic).map_err(|error| format!("`{topic}` is no regular expression: {}", last_line(&error)))?;
                topics.patterns.push((pattern, payload));
            } else if is_name(topic) {
                topics.names.push((topic.clone(), payload));
            } else {
                return Err(format!("`{topic}` is no name of a topic: letters, digits, `.`, `_` and `-`; a regular expression begins with `^`"));
            }
        }
        Ok(topics)
    }

    /// What a topic's messages are; `None` when it is not meant. A name says it before an expression, findings before logs.
    pub(super) fn payload(&self, topic: &str) -> Option<Payload> {
        let named = self.names.iter().find(|(name, _)| name == topic).map(|(_, payload)| *payload);
        // Those of Kafka's own are never meant by an expression.
        let foreign = !topic.starts_with("__");
        named.or_else(|| self.patterns.iter().find(|(pattern, _)| foreign && pattern.is_match(topic)).map(|(_, payload)| *payload))
    }

    /// Those that are named.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// Whether all of the cluster's topics must be looked at.
    pub(super) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }
}

/// As Kafka has it.
fn is_name(topic: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !topic.is_empty() && topic.len() <= 249 && topic != "." && topic != ".." && topic.chars().all(plain)
}

/// The expression's fault without the drawing above it.
fn last_line(error: &regex::Error) -> String {
    error.to_string().lines().last().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(logs: &[&str], findings: &[&str]) -> Result<Topics, String> {
        let owned = |topics: &[&str]| topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>();
        Topics::new(&owned(logs), &owned(findings))
    }

    #[test]
    fn a_name_says_what_a_topic_is_before_an_expression_and_findings_before_logs() {
        let topics = topics(&["^.", "findings.raw"], &["^findings"]).unwrap();
        assert_eq!(topics.payload("findings.wifi"), Some(Payload::Finding));
        assert_eq!(topics.payload("findings.raw"), Some(Payload::Log));
        assert_eq!(topics.payload("ap-logs"), Some(Payload::Log));
        assert_eq!(topics.payload("__consumer_offsets"), None, "those of Kafka's own are never meant");
    }

    #[test]
    fn what_is_no_topic_is_refused_with_a_sentence() {
        assert!(topics(&["a b"], &[]).unwrap_err().contains("begins with `^`"));
        assert!(topics(&["^(a"], &[]).unwrap_err().contains("no regular expression"));
    }
}
