//! Mail over SMTP (RFC 5321): with TLS from the start or by STARTTLS, signed in when the address has a user.

use std::time::{Duration, SystemTime};

use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::PoolConfig;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::{Letter, MailError, Mailer, Posted};
use crate::domain::secret::Secret;

/// How long one step of the conversation may take.
const ONE_STEP: Duration = Duration::from_secs(15);

/// How long a letter may take, in all.
const IN_ALL: Duration = Duration::from_secs(45);

/// Where mail goes.
pub struct Relay {
    /// The server's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the way there is protected.
    pub security: Security,
    /// User and password, when it asks for them.
    pub sign_in: Option<(String, Secret<String>)>,
    /// Authorities besides the system's that may have certified it, as PEM.
    pub authority: Option<Vec<u8>>,
}

/// How the way to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the start.
    Tls,
    /// TLS after STARTTLS; a server that does not offer it gets nothing.
    StartTls,
    /// Not at all: for a server on the same machine.
    Plain,
}

/// Sends over SMTP.
pub struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Smtp {
    /// Sends by this server, in this name: `Acme <no-reply@acme.example>`. Connects when there is something to send.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(relay: &Relay, from: &str) -> Result<Self, String> {
        let tls = || {
            let mut tls = TlsParameters::builder(relay.host.clone());
            if let Some(pem) = &relay.authority {
                let certificate =
                    Certificate::from_pem(pem).map_err(|e| format!("the authority's certificate: {e}"))?;
                tls = tls.add_root_certificate(certificate);
            }
            tls.build().map_err(|e| format!("TLS cannot be set up: {e}"))
        };
        let tls = match relay.security {
            Security::Tls => Tls::Wrapper(tls()?),
            Security::StartTls => Tls::Required(tls()?),
            Security::Plain => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&relay.host)
            .port(relay.port)
            .tls(tls)
            .timeout(Some(ONE_STEP))
            .pool_config(PoolConfig::new().max_size(8).idle_timeout(Duration::from_secs(30)));
        if let Some((user, password)) = &relay.sign_in {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose().clone()));
        }
        Ok(Self { transport: builder.build(), from: sender(from)? })
    }
}

impl Mailer for Smtp {
    fn send<'a>(&'a self, letter: &'a Letter) -> Posted<'a> {
        Box::pin(async move {
            let message = compose(letter, &self.from)?;
            let passing = |problem: String| MailError { permanent: false, problem };
            let sent = tokio::time::timeout(IN_ALL, self.transport.send(message)).await;
            let sent = sent.map_err(|_| passing("the mail server does not answer in time".to_owned()))?;
            sent.map(drop).map_err(|error| MailError { permanent: is_of_the_letter(&error), problem: told(&error) })
        })
    }
}

/// Whether a refusal is about the letter or who it is to (RFC 5321, section 4.2.3), and for good. Others, such as one of the
/// server's credentials, are about all mail alike, and end when somebody mends that.
fn is_of_the_letter(error: &lettre::transport::smtp::Error) -> bool {
    let code = error.status().map(|code| code.to_string()).unwrap_or_default();
    ["550", "551", "552", "553", "556"].contains(&code.as_str())
}

/// What went wrong, with what is behind it: `Connection error` alone helps nobody.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        behind = error.source();
    }
    text
}

/// Reads who mail comes from.
///
/// # Errors
/// What is wrong with it.
pub fn sender(from: &str) -> Result<Mailbox, String> {
    from.parse().map_err(|_| "must be an address such as `Acme <no-reply@acme.example>`".to_owned())
}

/// The letter as a message. What came from people cannot add a header: addresses were checked, and the subject is one line
/// here, whatever it was before.
pub(super) fn compose(letter: &Letter, from: &Mailbox) -> Result<Message, MailError> {
    let broken = |problem: String| MailError { permanent: true, problem };
    let to = letter.to.as_str().parse().map_err(|e| broken(format!("the address cannot be written to: {e}")))?;
    let subject: String = letter.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(subject)
        .date(SystemTime::from(letter.at.utc()))
        .message_id(Some(format!("<{}@{}>", letter.id, from.email.domain())))
        // Nobody's holiday answers are wanted.
        .raw_header(lettre::message::header::HeaderValue::new(
            lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ))
        .multipart(MultiPart::alternative_plain_html(letter.text.clone(), letter.html.clone()))
        .map_err(|e| broken(format!("the letter cannot be written: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::Email;
    use crate::time::Timestamp;

    #[test]
    fn what_people_wrote_adds_no_header() {
        let letter = Letter {
            id: "1".to_owned(),
            to: Email::parse("ada@example.com").unwrap(),
            subject: "Acme\r\nBcc: eve@example.com\r\n\r\nbody".to_owned(),
            text: "Bcc: eve@example.com".to_owned(),
            html: "<p>hello</p>".to_owned(),
            at: Timestamp::from_micros(0),
        };
        let message = compose(&letter, &sender("Acme <no-reply@acme.example>").unwrap()).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{head}");
        assert!(head.contains("Message-ID: <1@acme.example>"), "{head}");
        assert_eq!(message.envelope().to().len(), 1);
    }
}
