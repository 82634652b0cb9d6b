//! One configured destination.

use std::sync::Arc;

use super::answer::{Answer, SendError};
use super::follow::Manner;
use super::http::Post;
use super::notice::Notice;
use super::{email, pagerduty, slack, webhook};
use crate::diag::{Diagnostic, Place};
use crate::model::Time;

/// A channel: a file in `notifiers/`.
#[derive(Clone, Debug)]
pub struct Channel {
    /// The file's name without `.toml`.
    pub name: Arc<str>,
    /// The file as the user knows it.
    pub file: Arc<str>,
    /// Whether anything is sent to it.
    pub enabled: bool,
    /// Where the file says `enabled = false`.
    pub switch: Place,
    /// Its kind, with its configuration.
    pub integration: Integration,
}

/// The kinds of channels.
#[derive(Clone, Debug)]
pub enum Integration {
    /// By SMTP.
    Email(Box<email::Email>),
    /// PagerDuty's Events API v2.
    PagerDuty(Box<pagerduty::PagerDuty>),
    /// Slack's Web API.
    Slack(Box<slack::Slack>),
    /// By signed HTTP POST.
    Webhook(Box<webhook::Webhook>),
}

/// Whether a message whose answer was lost may be sent again (semantics O7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Yes: the delivery's id goes with it, and the other side knows it again.
    ByKey,
    /// No: a second mail is a second mail, a second Slack message a second one.
    Never,
}

impl Integration {
    /// As the configuration names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Integration::Email(_) => "email",
            Integration::PagerDuty(_) => "pagerduty",
            Integration::Slack(_) => "slack",
            Integration::Webhook(_) => "webhook",
        }
    }

    /// Whether a message whose answer was lost may be sent again.
    #[must_use]
    pub fn repeat(&self) -> Repeat {
        match self {
            Integration::Email(_) | Integration::Slack(_) => Repeat::Never,
            Integration::PagerDuty(_) | Integration::Webhook(_) => Repeat::ByKey,
        }
    }

    /// How it tells of an alert's further findings.
    #[must_use]
    pub fn manner(&self) -> Manner {
        match self {
            Integration::Email(_) | Integration::Webhook(_) => Manner::Each,
            Integration::PagerDuty(_) | Integration::Slack(_) => Manner::InPlace,
        }
    }

    /// Whether it tells that an alert is over.
    #[must_use]
    pub fn tells_the_end(&self) -> bool {
        match self {
            Integration::Email(email) => email.resolved,
            Integration::PagerDuty(_) | Integration::Slack(_) | Integration::Webhook(_) => true,
        }
    }

    /// Where it sends to, for people: without paths and queries, which may be secret.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Integration::Email(email) => email.target(),
            Integration::PagerDuty(pagerduty) => pagerduty.server.target(),
            Integration::Slack(slack) => slack.server.target(),
            Integration::Webhook(webhook) => webhook.server.target(),
        }
    }
}

/// A message on its way: all that can fail before the other side has it is done.
#[derive(Debug)]
pub enum Prepared {
    /// Connected, authenticated, sender and recipients accepted.
    Email(Box<email::Ready>),
    /// Requests that are sent one after the other, each once the one before it was accepted.
    Http(Vec<Post>),
    /// A new message, or the change of one.
    Slack(Box<slack::Ready>),
}

impl Channel {
    /// Reads the secrets and certificates that the file names, so that a missing one is told before it is needed.
    ///
    /// # Errors
    /// What cannot be read, with the channel's file.
    pub fn check(&self) -> Result<(), Diagnostic> {
        let checked = match &self.integration {
            Integration::Email(email) => email.check(),
            Integration::PagerDuty(pagerduty) => pagerduty.check(),
            Integration::Slack(slack) => slack.check(),
            Integration::Webhook(webhook) => webhook.check(),
        };
        checked.map_err(|fault| Diagnostic::new(self.file.clone(), Place::default(), fault))
    }

    /// The sentence for a disabled channel: its place and the remedy.
    #[must_use]
    pub fn disabled(&self) -> Diagnostic {
        let message = format!("channel {} is disabled", self.name);
        Diagnostic::new(self.file.clone(), self.switch, message).help("fill the file in and set `enabled = true`")
    }

    /// Does all that comes before the message is given away: for email up to the accepted recipients.
    ///
    /// `delivery` is the idempotency key, `now` the time that the message and its signature carry.
    ///
    /// # Errors
    /// [`SendError`], never ambiguous: nothing was given away.
    pub async fn prepare(&self, notice: &Notice, delivery: &str, now: Time) -> Result<Prepared, SendError> {
        if !self.enabled {
            return Err(SendError::permanent(self.disabled()));
        }
        match &self.integration {
            Integration::Email(email) => email.prepare(notice, delivery, now).await.map(|ready| Prepared::Email(Box::new(ready))),
            Integration::PagerDuty(pagerduty) => pagerduty.prepare(notice, delivery).map(Prepared::Http),
            Integration::Slack(slack) => slack.prepare(notice, delivery).map(|ready| Prepared::Slack(Box::new(ready))),
            Integration::Webhook(webhook) => webhook.prepare(notice, delivery, now).map(|post| Prepared::Http(vec![post])),
        }
    }
}

impl Prepared {
    /// Gives the message away, once.
    ///
    /// # Errors
    /// [`SendError`]; ambiguous when the message was given away and the answer was lost.
    pub async fn send(self) -> Result<Answer, SendError> {
        match self {
            Prepared::Email(ready) => ready.send().await,
            Prepared::Http(posts) => one_by_one(posts).await,
            Prepared::Slack(ready) => ready.send().await,
        }
    }
}

async fn one_by_one(posts: Vec<Post>) -> Result<Answer, SendError> {
    let mut answer = Answer::new("nothing was to be sent");
    for post in posts {
        answer = post.send().await?.judged()?;
    }
    Ok(answer)
}
