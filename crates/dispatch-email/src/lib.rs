//! Sends mails about events by SMTP: the "ready for pickup" to a customer.
//!
//! The text is a template over the event, and so is the address. A mail is
//! delivered when the server has taken it; a second attempt carries the same
//! `Message-ID`, by which servers and readers may know it.
//!
//! Start reading at [`EmailDispatcher`].

mod recipients;
mod settings;

use std::fs;
use std::time::Duration;

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, Role};
use dispatch_kit::{Secret, Template, View, read_template};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::{Error as SmtpError, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use crate::recipients::Recipients;
use crate::settings::{Security, ServerSettings};

pub use crate::settings::EmailSettings;

/// How long one attempt may take: mail servers think before they answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends mails through one server.
#[derive(Debug)]
pub struct EmailDispatcher {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Recipients,
    subject: Template,
    text: Template,
    html: Option<Template>,
}

/// Why a mail can't be made. Says nothing of the event's values.
#[derive(Debug, thiserror::Error)]
enum Unmade {
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
        let EmailSettings { server, from, to, subject, text, html } = settings;
        let plain = |name: &str, source: String| {
            Template::parse(source, "text/plain").map_err(|error| format!("{name}: {error}"))
        };
        Ok(Self {
            server: open(&server, cx)?,
            from: from.parse().map_err(|_| "from: expected an address, such as Shop <shop@example.com>")?,
            to: Recipients::open(to)?,
            subject: one_line(plain("subject", subject)?)?,
            text: read_template(&cx.resolve(&text), "text/plain")?,
            html: html.map(|html| read_template(&cx.resolve(&html), "text/html")).transpose()?,
        })
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let mail = self.mail(event, cx)?;
        // Mail carries no trace: the span ends where the server has it.
        let call = cx.call(Role::Client, "send mail");
        match self.server.send(mail).await {
            Ok(answer) => {
                call.answered(|| vec![("smtp.response.status_code", u16::from(answer.code()).into())]);
                Ok(Done::with_status(answer.code().into()))
            }
            Err(error) => {
                call.failed("not-taken", Vec::new);
                Err(refused(error))
            }
        }
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

impl EmailDispatcher {
    fn mail(&self, event: &Event, cx: &Context) -> Result<Message, DispatchError> {
        let unmade = |why: Unmade| DispatchError::permanent("writing the mail", why);
        let view = View::of_attempt(event, cx)?;
        let to = self.to.fill(&view)?;
        let subject = self.subject.fill(&view)?;
        if !is_one_line(&subject) {
            return Err(unmade(Unmade::Subject));
        }
        let id = format!("<{}@{}>", cx.idempotency_key, self.from.email.domain());
        let builder = Message::builder().from(self.from.clone()).message_id(Some(id)).subject(subject.trim());
        let builder = to.into_iter().fold(builder, lettre::message::MessageBuilder::to);
        let text = self.text.fill(&view)?;
        let made = match &self.html {
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(text, html.fill(&view)?)),
            None => builder.singlepart(SinglePart::plain(text)),
        };
        made.map_err(|_| unmade(Unmade::Parts))
    }
}

fn is_one_line(subject: &str) -> bool {
    !subject.trim().contains(|c: char| c.is_control())
}

/// A subject, if it is one line of a sample event.
fn one_line(subject: Template) -> Result<Template, BoxError> {
    match subject.sample_texts().all(|text| is_one_line(&text)) {
        true => Ok(subject),
        false => Err("subject: expected one line, of a sample event too".into()),
    }
}

/// RFC 5321, section 4.2.1: 5yz will not change by itself, all else may. What the
/// server said may name the customer, and is not repeated.
fn refused(error: SmtpError) -> DispatchError {
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Refused(&'static str);
    const ACTION: &str = "handing the mail to the server";
    let status = error.status().map(u16::from);
    let source = Refused(match () {
        () if error.is_permanent() => "the server will not take it",
        () if error.is_transient() => "the server does not take it now",
        () if error.is_timeout() => "the server did not answer in time",
        () if error.is_tls() => "no secure connection to the server",
        () => "no connection to the server, or not with this login",
    })
    .into();
    match error.is_permanent() && status.is_some_and(is_about_the_mail) {
        true => DispatchError::Permanent { action: ACTION, status, source },
        false => DispatchError::Transient { action: ACTION, retry_after: None, status, source },
    }
}

/// A login that is refused (RFC 4954: 530 to 538) is a matter of settings: it must
/// not bury a thousand mails.
fn is_about_the_mail(status: u16) -> bool {
    !(530..=538).contains(&status)
}

fn open(settings: &ServerSettings, cx: &OpenContext) -> Result<AsyncSmtpTransport<Tokio1Executor>, BoxError> {
    settings.ensure_protected_credentials()?;
    let ServerSettings { host, port, security, user, password, ca, .. } = settings;
    let parameters = || -> Result<TlsParameters, BoxError> {
        let mut tls = TlsParameters::builder(host.clone());
        if let Some(ca) = ca {
            let pem = fs::read(cx.resolve(ca)).map_err(|error| format!("server.ca: {error}"))?;
            tls = tls
                .certificate_store(CertificateStore::None)
                .add_root_certificate(Certificate::from_pem(&pem)?);
        }
        Ok(tls.build_rustls()?)
    };
    let (usual, tls) = match security {
        Security::Starttls => (587, Tls::Required(parameters()?)),
        Security::Tls => (465, Tls::Wrapper(parameters()?)),
        Security::None => (25, Tls::None),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port.unwrap_or(usual))
        .tls(tls)
        .timeout(Some(TIMEOUT / 3))
        .pool_config(PoolConfig::new().max_size(16));
    match (user, password) {
        (Some(user), Some(file)) => {
            let password = Secret::open(file, cx)?.get().map_err(Box::new)?;
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        (None, None) => {}
        _ => return Err("server: expected user and password together".into()),
    }
    Ok(builder.build())
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
