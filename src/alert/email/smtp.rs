//! The dialogue with the server. Until the message itself is given away nothing has been accepted, so every failure
//! before it is known; after it, a lost answer is ambiguous.

use std::fmt;

use lettre::address::Envelope;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Severity;

use super::compose::compose;
use super::{Email, Tls};
use crate::alert::answer::{Answer, Failure, SendError};
use crate::alert::notice::Notice;
use crate::http::{tls, with_causes};
use crate::model::{Span, Time};
use crate::secret::Secret;

/// How long a server may take to say goodbye, which nothing depends on.
const GOODBYE: std::time::Duration = std::time::Duration::from_millis(500);

/// Connected, authenticated, sender and at least one recipient accepted.
pub struct Ready {
    connection: AsyncSmtpConnection,
    message: Vec<u8>,
    target: String,
    timeout: Span,
    /// Recipients that the server refused, with its words.
    refused: Vec<String>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Email {
    /// Whether password and certificates can be read; else why not.
    pub(in crate::alert) fn check(&self) -> Result<(), String> {
        self.password()?;
        self.tls_parameters().map(drop)
    }

    fn password(&self) -> Result<Option<(String, Secret)>, String> {
        let Some((user, source)) = &self.login else { return Ok(None) };
        source.read().map(|secret| Some((user.clone(), secret))).map_err(|error| error.to_string())
    }

    fn tls_parameters(&self) -> Result<TlsParameters, String> {
        tls::install_provider();
        let mut builder = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.ca_file {
            let pem = tls::read_certificates(path)?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| format!("the certificates in {}: {error}", path.display()))?;
            builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
        }
        builder.build().map_err(|error| format!("TLS cannot be set up: {}", with_causes(&error)))
    }

    /// Composes the mail and goes as far as the accepted recipients, within the channel's timeout.
    pub(in crate::alert) async fn prepare(&self, notice: &Notice, delivery: &str, now: Time) -> Result<Ready, SendError> {
        let message = compose(self, notice, delivery, now)?;
        // The owner can mend a missing file while the delivery waits.
        let login = self.password().map_err(SendError::retryable)?;
        let dialogue = async {
            let mut connection = self.connect(login.as_ref()).await?;
            let refused = self.envelope(&mut connection).await?;
            Ok((connection, refused))
        };
        let late = || SendError::retryable(format!("{} did not answer within {}", self.target(), self.timeout));
        let (connection, refused) =
            tokio::time::timeout(self.timeout.to_std(), dialogue).await.unwrap_or_else(|_| Err(late())).map_err(|error| match &login {
                Some((_, password)) => SendError { detail: password.redact(&error.detail), ..error },
                None => error,
            })?;
        Ok(Ready { connection, message, target: self.target(), timeout: self.timeout, refused })
    }

    async fn connect(&self, login: Option<&(String, Secret)>) -> Result<AsyncSmtpConnection, SendError> {
        let hello = ClientId::default();
        let parameters = if self.tls == Tls::None { None } else { Some(self.tls_parameters().map_err(SendError::retryable)?) };
        let (wrapped, upgrade) = if self.tls == Tls::Implicit { (parameters, None) } else { (None, parameters) };
        let at = |what: &'static str| move |error: smtp::Error| refusal(&self.target(), what, &error);
        let server = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, Some(self.timeout.to_std()), &hello, wrapped, None).await.map_err(at("connecting"))?;
        if let Some(parameters) = upgrade {
            if !connection.can_starttls() {
                // Not permanent: somebody on the way may be hiding the offer.
                return Err(SendError::retryable(format!("{} offers no STARTTLS: ask for another port, or write `tls = \"implicit\"`", self.target())));
            }
            connection.starttls(parameters, &hello).await.map_err(at("STARTTLS"))?;
        }
        if let Some((user, password)) = login {
            let credentials = Credentials::new(user.clone(), password.expose().to_owned());
            connection.auth(DEFAULT_MECHANISMS, &credentials).await.map_err(at("logging in"))?;
        }
        Ok(connection)
    }

    /// MAIL and RCPT. One accepted recipient is enough to go on, so that a full mailbox does not keep an alert from the
    /// others; who was refused is told with the answer. When all are, the mildest refusal decides whether it is tried again.
    async fn envelope(&self, connection: &mut AsyncSmtpConnection) -> Result<Vec<String>, SendError> {
        let addresses = self.to.iter().map(|to| to.email.clone()).collect();
        let envelope = Envelope::new(Some(self.from.email.clone()), addresses).map_err(|error| SendError::permanent(with_causes(&error)))?;
        let mail = Mail::new(envelope.from().cloned(), Vec::new());
        connection.command(mail).await.map_err(|error| refusal(&self.target(), "naming the sender", &error))?;
        let mut refused = Vec::new();
        for to in envelope.to() {
            match connection.command(Rcpt::new(to.clone(), Vec::new())).await {
                Ok(_) => {}
                Err(error) if error.status().is_some() => refused.push((to.to_string(), error)),
                Err(error) => return Err(refusal(&self.target(), "naming the recipients", &error)),
            }
        }
        if refused.len() < envelope.to().len() {
            return Ok(refused.into_iter().map(|(to, error)| format!("{to}: {error}")).collect());
        }
        let mildest = refused.iter().find(|(_, error)| error.is_transient()).or(refused.first());
        Err(mildest.map_or_else(|| SendError::permanent("no recipient"), |(to, error)| refusal(&self.target(), &format!("naming the recipient {to}"), error)))
    }
}

impl Ready {
    /// DATA and the message.
    pub(in crate::alert) async fn send(mut self) -> Result<Answer, SendError> {
        let timeout = self.timeout.to_std();
        match tokio::time::timeout(timeout, self.connection.command(Data)).await {
            // An answer that belongs to another command would put all that follow in the wrong place.
            Ok(Ok(response)) if response.code().severity == Severity::PositiveIntermediate => {}
            Ok(Ok(response)) => return Err(SendError::retryable(format!("{}: DATA was answered with {}", self.target, response.code()))),
            Ok(Err(error)) => return Err(refusal(&self.target, "announcing the mail", &error)),
            Err(_) => return Err(SendError::retryable(format!("{} did not answer DATA within {}", self.target, self.timeout))),
        }
        let lost = |why: String| SendError::new(Failure::Ambiguous, format!("{}: the mail was given away and the answer was lost: {why}", self.target));
        let response = match tokio::time::timeout(timeout, self.connection.message(&self.message)).await {
            Ok(Ok(response)) if response.code().severity == Severity::PositiveCompletion => response,
            Ok(Ok(response)) => return Err(lost(format!("{} is no answer", response.code()))),
            Ok(Err(error)) if error.status().is_some() => return Err(refusal(&self.target, "sending the mail", &error)),
            Ok(Err(error)) => return Err(lost(with_causes(&error))),
            Err(_) => return Err(lost(format!("nothing within {}", self.timeout))),
        };
        let words: Vec<&str> = response.message().collect();
        let mut said = format!("{} {}", response.code(), words.join(" "));
        if !self.refused.is_empty() {
            said.push_str(&format!(" (not to {})", self.refused.join("; ")));
        }
        // Nothing depends on a goodbye.
        let _ = tokio::time::timeout(GOODBYE, self.connection.quit()).await;
        Ok(Answer::new(said))
    }
}

/// A 5xx answer is a no; anything else before the message was given away can be tried again.
fn refusal(target: &str, what: &str, error: &smtp::Error) -> SendError {
    let kind = if error.is_permanent() { Failure::Permanent } else { Failure::Retryable { after: None } };
    SendError::new(kind, format!("{target}: {what}: {}", with_causes(error)))
}
