//! What librdkafka says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::broker::KafkaConfig;

/// The longest reason that is repeated, in characters.
const MAX_REASON: usize = 300;

/// What is in the way, and so what the remedy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody answers, or the connection is lost.
    Away,
    /// User and password are refused.
    Credentials,
    /// The certificate of one side does not do for the other.
    Certificate,
    /// What answers is no Kafka, or speaks otherwise (TLS or not).
    Language,
}

/// Why the cluster cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is in the way.
    pub kind: Kind,
    /// One sentence with the remedy, without secrets.
    pub text: String,
}

/// Hears a client's errors and keeps the newest one that says something; a clone is the same listener.
#[derive(Clone, Debug)]
pub struct Listener {
    servers: Arc<str>,
    user: Arc<str>,
    newest: Arc<Mutex<Option<Trouble>>>,
}

impl Listener {
    /// One that has heard nothing.
    #[must_use]
    pub fn new(config: &KafkaConfig) -> Listener {
        let user = config.user.clone().unwrap_or_default();
        Listener { servers: config.servers.join(", ").into(), user: user.into(), newest: Arc::default() }
    }

    /// The newest trouble since [`Listener::clear`].
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.lock().clone()
    }

    /// The same; where nothing was heard, that nobody answers.
    #[must_use]
    pub fn trouble_or_silence(&self) -> Trouble {
        self.trouble().unwrap_or_else(|| self.away("no answer"))
    }

    /// The cluster does what it is asked.
    pub fn clear(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self, reason: &str) -> Trouble {
        // So looks a port that wants TLS to who does not speak it.
        let remedy = if reason.contains("Disconnected") { "; look at `protocol` in the [broker] table" } else { "" };
        Trouble { kind: Kind::Away, text: format!("no Kafka broker of {} can be reached ({reason}); it is tried again{remedy}", self.servers) }
    }

    fn sentence(&self, code: RDKafkaErrorCode, reason: &str) -> Option<Trouble> {
        use RDKafkaErrorCode as Code;
        let Listener { servers, user, .. } = self;
        let trouble = |kind, text| Some(Trouble { kind, text });
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism | Code::IllegalSASLState => trouble(
                Kind::Credentials,
                format!("the Kafka broker refuses the user `{user}` ({reason}); correct `user`, its password or `mechanism` in the [broker] table"),
            ),
            Code::SSL if is_language(reason) => trouble(Kind::Language, other_language(servers, reason)),
            Code::SSL => trouble(
                Kind::Certificate,
                format!("no TLS with the Kafka broker ({reason}); correct `ca_file`, `cert_file` or the names in `servers` in the [broker] table"),
            ),
            Code::BadMessage | Code::InvalidMessageSize | Code::Underflow | Code::UnsupportedFeature => {
                trouble(Kind::Language, other_language(servers, reason))
            }
            Code::BrokerTransportFailure if is_language(reason) => trouble(Kind::Language, other_language(servers, reason)),
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut | Code::AllBrokersDown => Some(self.away(reason)),
            _ => None,
        }
    }
}

fn other_language(servers: &str, reason: &str) -> String {
    format!("what answers at {servers} does not speak Kafka as it is configured ({reason}); correct `servers` or `protocol` in the [broker] table")
}

/// Whether the reason is that one side takes the other's words for something else.
fn is_language(reason: &str) -> bool {
    ["wrong version number", "verify that security.protocol", "Invalid response size", "ApiVersion", "packet length", "unexpected eof"]
        .iter()
        .any(|words| reason.contains(words))
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Most of what matters comes as an error too. A connection that is closed comes only here, and so does why it was.
        if facility == "FAIL" && self.trouble().is_none_or(|trouble| trouble.kind == Kind::Away) {
            let trouble = self.sentence(RDKafkaErrorCode::BrokerTransportFailure, &clean(text));
            *self.lock() = trouble;
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!("librdkafka: {facility} {}", clean(text)),
            _ => tracing::debug!("librdkafka: {facility} {}", clean(text)),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = clean(reason);
        tracing::debug!("librdkafka: {error}: {reason}");
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let Some(trouble) = self.sentence(code, &reason) else { return };
        let mut newest = self.lock();
        // That all are down follows from the one before, which says why.
        if newest.is_none() || code != RDKafkaErrorCode::AllBrokersDown {
            *newest = Some(trouble);
        }
    }
}

/// The text without what would disturb a line, how long something took, and which thread said it; bounded.
pub(super) fn clean(text: &str) -> String {
    let text = text.split(" (after ").next().unwrap_or(text);
    let text = text.rsplit_once("]: ").filter(|(thread, _)| thread.starts_with("[thrd:")).map_or(text, |(_, rest)| rest);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Listener {
        let config = KafkaConfig {
            servers: vec!["k1:9092".to_owned(), "k2:9092".to_owned()],
            protocol: crate::broker::Protocol::SaslSsl,
            mechanism: crate::broker::Mechanism::ScramSha512,
            user: Some("opmas".to_owned()),
            password: None,
            tls: crate::broker::TlsFiles::default(),
        };
        Listener::new(&config)
    }

    #[test]
    fn what_follows_from_a_trouble_does_not_hide_it() {
        let listener = listener();
        listener.error(KafkaError::Global(RDKafkaErrorCode::Authentication), "[thrd:x]: x/1: SASL failed (after 3ms in state AUTH)");
        listener.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "2/2 brokers are down");
        let trouble = listener.trouble().unwrap();
        assert_eq!(trouble.kind, Kind::Credentials);
        assert!(trouble.text.contains("`opmas` (x/1: SASL failed)"), "{}", trouble.text);
        listener.clear();
        assert!(listener.trouble_or_silence().text.contains("k1:9092, k2:9092"));
    }

    #[test]
    fn a_reason_cannot_disturb_the_log() {
        assert_eq!(clean("a\u{1b}[2J\nb"), "a [2J b");
        assert_eq!(clean(&"x".repeat(1_000)).len(), MAX_REASON);
    }
}
