//! Where mail goes: into files, or to a mail server, whose URL holds a password and so is never shown whole.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use url::Url;
use url::form_urlencoded;

/// Where mail goes. Reading it never fails, because the command line would print the text that it could not read, password
/// and all; `problem` says later what is wrong with it.
#[derive(Clone, PartialEq, Eq)]
pub struct MailUrl(String);

/// A mail server, taken apart.
pub struct MailServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `smtps`: TLS from the start; `smtp`: by STARTTLS; `smtp+plain`: none.
    pub scheme: String,
    /// User and password.
    pub sign_in: Option<(String, String)>,
}

impl MailUrl {
    /// Whether mail goes into files.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.0 == "file"
    }

    /// The mail server with its password: for the connection alone, never for a log. None when mail goes into files.
    ///
    /// # Errors
    /// What is wrong with the URL, without its text.
    pub fn server(&self) -> Result<Option<MailServer>, &'static str> {
        if self.is_file() {
            return Ok(None);
        }
        let url = Url::parse(&self.0)
            .map_err(|_| "must be file or a URL; special characters in a password must be percent-encoded")?;
        let port = match url.scheme() {
            "smtps" => 465,
            "smtp" => 587,
            "smtp+plain" => 25,
            _ => return Err("must be file, or begin with smtps://, smtp:// or smtp+plain://"),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("must name a host")?;
        let user = decoded(url.username());
        let sign_in = (!user.is_empty()).then(|| (user, decoded(url.password().unwrap_or_default())));
        let local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        if url.scheme() == "smtp+plain" && sign_in.is_some() && !local {
            return Err("must not send a password without TLS to another machine: use smtps:// or smtp://");
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Some(MailServer { host, port: url.port().unwrap_or(port), scheme: url.scheme().to_owned(), sign_in }))
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> String {
    let pair = form_urlencoded::parse(text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D").as_bytes())
        .next()
        .map(|(text, _)| text.into_owned());
    pair.unwrap_or_default()
}

impl FromStr for MailUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Display for MailUrl {
    /// `file`, or scheme, host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server() {
            Ok(None) => f.write_str("file"),
            Ok(Some(server)) => write!(f, "{}://{}:{}", server.scheme, server.host, server.port),
            Err(_) => f.write_str("(not a URL)"),
        }
    }
}

impl fmt::Debug for MailUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> MailUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_mail_server_is_taken_apart_and_its_password_not_shown() {
        let given = url("smtps://no-reply%40acme.example:hunter2%2B+@mail.acme.example");
        let server = given.server().unwrap().unwrap();
        assert_eq!((server.host.as_str(), server.port), ("mail.acme.example", 465));
        assert_eq!(server.sign_in, Some(("no-reply@acme.example".to_owned(), "hunter2++".to_owned())));
        assert!(!format!("{given} {given:?}").contains("hunter2"));
        assert_eq!(url("smtp://localhost").server().unwrap().unwrap().port, 587);
        assert_eq!(url("smtp+plain://u:p@[::1]:2525").server().unwrap().unwrap().host, "::1");
        assert!(url("file").server().unwrap().is_none());
    }

    #[test]
    fn what_is_no_way_for_mail_is_refused() {
        for text in ["", "files", "http://mail.acme.example", "smtp://", "smtp+plain://u:hunter2@mail.acme.example"] {
            assert!(url(text).server().is_err(), "{text}");
        }
    }
}
