//! Sends mails about events by SMTP: the "ready for pickup" to a customer.
//!
//! The text is a template over the event, and so is the address. A mail is
//! delivered when the server has taken it; a second attempt carries the same
//! `Message-ID`, by which servers and readers may know it.
//!
//! Start reading at [`EmailDispatcher`].

mod connection;
mod recipients;
mod reply;
mod server;
mod settings;

use std::time::Duration;

use dispatch::{
    BoxError, Context, DispatchError, Dispatcher, Done, Event, InvalidSetting, OpenContext,
    OpenErrors, Preview, Role,
};
use dispatch_kit::{Template, View, read_template};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use tokio::time::Instant;

use crate::connection::{MailReceipt, SmtpError};
use crate::recipients::Recipients;
use crate::server::MailServer;

pub use crate::settings::EmailSettings;

/// Longest time of an attempt: mail servers may be slow to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time before the end of an attempt at which the rest of an answer is no longer awaited if its
/// code came: reported in time, the mail is sent once.
const BEFORE_THE_END: Duration = Duration::from_millis(250);

/// Sends mails through one server.
#[derive(Debug)]
pub struct EmailDispatcher {
    server: MailServer,
    from: Mailbox,
    to: Recipients,
    subject: Template,
    text: Template,
    html: Option<Template>,
}

/// Reason for which a mail can't be made. Says nothing of the event's values.
#[derive(Debug, thiserror::Error)]
enum MailError {
    #[error("a template of `to` made something that is not one address")]
    To,
    #[error("`subject` made more than one line")]
    Subject,
    #[error("a part of it can't be in a mail")]
    Parts,
}

impl Dispatcher for EmailDispatcher {
    const KIND: &'static str = "email";
    type Settings = EmailSettings;

    async fn open(settings: EmailSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let EmailSettings {
            server,
            from,
            to,
            subject,
            text,
            html,
        } = settings;
        let plain = |name: &str, source: String| {
            let template = Template::parse(source.clone(), "text/plain");
            template.map_err(|error| InvalidSetting::new(source, format!("{name}: {error}")))
        };
        let mut errors = OpenErrors::default();
        let server = errors.check(MailServer::open(&server, cx));
        let from = from.parse().map_err(|_| {
            let why = "from: expected an address, such as Shop <shop@example.com>";
            InvalidSetting::new(from, why)
        });
        let from = errors.check(from);
        let to = errors.check(Recipients::open(to));
        let subject = plain("subject", subject)
            .map_err(BoxError::from)
            .and_then(one_line);
        let subject = errors.check(subject);
        let text = errors.check(read_template(&cx.resolve(&text), "text/plain"));
        let html = html.map(|html| read_template(&cx.resolve(&html), "text/html"));
        let html = errors.check(html.transpose());
        match (server, from, to, subject, text, html) {
            (Some(server), Some(from), Some(to), Some(subject), Some(text), Some(html)) => {
                Ok(Self {
                    server,
                    from,
                    to,
                    subject,
                    text,
                    html,
                })
            }
            _ => Err(errors.into_error()),
        }
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let whole = cx.timeout.min(TIMEOUT);
        let deadline = Instant::now() + whole.saturating_sub(BEFORE_THE_END.min(whole / 10));
        let mail = self.mail(event, cx)?;
        // Mail carries no trace: the span ends when the server has it.
        let call = cx.call(Role::Client, "send mail");
        match self
            .server
            .send(mail.envelope(), &mail.formatted(), deadline)
            .await
        {
            Ok(MailReceipt { code, remark }) => {
                call.answered(|| vec![("smtp.response.status_code", code.into())]);
                Ok(Done {
                    status: Some(code),
                    remark: remark.map(str::to_owned),
                })
            }
            Err(error) => {
                call.failed("not-taken", Vec::new);
                Err(refused(error))
            }
        }
    }

    fn preview(&self, event: &Event, cx: &Context) -> Result<Option<Preview>, DispatchError> {
        // Fails as the mail itself would.
        let mail = self.mail(event, cx)?;
        let view = View::of_attempt(event, cx)?;
        let to: Vec<_> = mail
            .envelope()
            .to()
            .iter()
            .map(ToString::to_string)
            .collect();
        let mut body = self.text.fill(&view)?;
        if let Some(html) = &self.html {
            body.push_str("\n\nand as HTML:\n\n");
            body.push_str(&html.fill(&view)?);
        }
        let preview = Preview::new(format!("a mail to {}", to.join(", ")), body)
            .with("from", self.from.to_string())
            .with("subject", self.subject.fill(&view)?.trim());
        Ok(Some(preview))
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn close(&self) {
        self.server.close().await;
    }
}

impl EmailDispatcher {
    fn mail(&self, event: &Event, cx: &Context) -> Result<Message, DispatchError> {
        let unmade = |why: MailError| DispatchError::permanent("writing the mail", why);
        let view = View::of_attempt(event, cx)?;
        let to = self.to.fill(&view)?;
        let subject = self.subject.fill(&view)?;
        if !is_one_line(&subject) {
            return Err(unmade(MailError::Subject));
        }
        let id = format!("<{}@{}>", cx.idempotency_key, self.from.email.domain());
        let builder = Message::builder()
            .from(self.from.clone())
            .message_id(Some(id))
            .subject(subject.trim());
        let builder = to
            .into_iter()
            .fold(builder, lettre::message::MessageBuilder::to);
        let text = self.text.fill(&view)?;
        let made = match &self.html {
            Some(html) => {
                builder.multipart(MultiPart::alternative_plain_html(text, html.fill(&view)?))
            }
            None => builder.singlepart(SinglePart::plain(text)),
        };
        made.map_err(|_| unmade(MailError::Parts))
    }
}

fn is_one_line(subject: &str) -> bool {
    !subject.trim().contains(|c: char| c.is_control())
}

/// Checks that a subject is one line for a sample event.
fn one_line(subject: Template) -> Result<Template, BoxError> {
    match subject.sample_texts().all(|text| is_one_line(&text)) {
        true => Ok(subject),
        false => Err("subject: expected one line, of a sample event too".into()),
    }
}

/// Converts an error of the server. By RFC 5321, section 4.2.1, 5yz will not change by itself,
/// and everything else may. So may an answer before a mail was mentioned: to the greeting, about
/// TLS or the login. The server's words may name the customer, and are not repeated.
fn refused(error: SmtpError) -> DispatchError {
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Refused(&'static str);
    const ACTION: &str = "handing the mail to the server";
    let is_about_the_mail =
        matches!(error, SmtpError::Refused(code @ 500..) if is_about_the_mail(code));
    let (status, why) = match error {
        SmtpError::Secret(error) => return error,
        SmtpError::Unwilling(code) => (Some(code), "the server takes no mail from here now"),
        SmtpError::Refused(code @ 500..) => (Some(code), "the server will not take it"),
        SmtpError::Refused(code @ 400..) => (Some(code), "the server does not take it now"),
        SmtpError::Refused(code) => (
            Some(code),
            "the server's answer does not fit what it was asked",
        ),
        SmtpError::TimedOut => (None, "the server did not answer in time"),
        SmtpError::Tls(_) => (None, "no secure connection to the server"),
        SmtpError::Lacks(_) => (None, "the server lacks what is needed for it"),
        SmtpError::Broken(_) => (
            None,
            "no connection to the server, or no sense in what it said",
        ),
    };
    let source = Refused(why).into();
    match is_about_the_mail {
        true => DispatchError::Permanent {
            action: ACTION,
            status,
            source,
        },
        false => DispatchError::Transient {
            action: ACTION,
            retry_after: None,
            status,
            source,
        },
    }
}

/// Whether a status is about the mail. A login that is refused (RFC 4954: 530 to 538) is a matter
/// of settings, and must not turn a thousand mails into dead letters.
fn is_about_the_mail(status: u16) -> bool {
    !(530..=538).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_of_more_than_one_line_is_found_before_an_event_comes() {
        for (source, is_good) in [
            ("{{ event.entityRef }} is ready", true),
            ("\n {{ event.attributes.anything }}\n", true),
            ("{{ event.entityRef }}\nBcc: x@example.com", false),
            ("{{ event.entityRef }}\tis ready", false),
        ] {
            let subject = Template::parse(source.to_owned(), "text/plain").unwrap();
            assert_eq!(one_line(subject).is_ok(), is_good, "{source:?}");
        }
    }
}
