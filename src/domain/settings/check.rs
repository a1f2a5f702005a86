//! What settings may be: bounds and written forms. All mistakes are found at once, each with its path.

use std::str::FromStr as _;

use serde_json::{Map, Value};
use url::Url;

use super::{Settings, SignInMethods};
use crate::domain::name::Email;
use crate::domain::role::Roles;

/// Bytes of `custom`, as JSON.
const CUSTOM_BYTES: usize = 16 * 1024;

/// How deep `custom` goes: an object in an object is two deep.
const CUSTOM_DEPTH: usize = 32;

/// Bytes of a style sheet.
const CSS_BYTES: usize = 32 * 1024;

/// Bytes of an address in the web.
const URL_BYTES: usize = 2048;

/// What is wrong so far: path, and the end of a sentence that begins with it.
struct Problems(Vec<(String, &'static str)>);

impl Problems {
    /// Notes what is wrong with a leaf, if it is set and anything is.
    fn check(&mut self, path: &str, value: Option<&String>, rule: impl FnOnce(&str) -> Result<(), &'static str>) {
        if let Some(Err(problem)) = value.map(|value| rule(value)) {
            self.0.push((path.to_owned(), problem));
        }
    }

    /// Notes a number that is out of bounds.
    fn range(&mut self, path: &str, value: Option<i64>, (least, most): (i64, i64), problem: &'static str) {
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            self.0.push((path.to_owned(), problem));
        }
    }
}

impl Settings {
    /// Everything that is wrong, each with its path, such as `branding.css`, and the end of a sentence that begins with it.
    /// Whether `auto_join.role` is a role is the catalogue's to say.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, &'static str)> {
        let mut p = Problems(Vec::new());
        p.check("locale", self.locale.as_ref(), locale);
        p.check("time_zone", self.time_zone.as_ref(), time_zone);
        p.check("currency", self.currency.as_ref(), currency);
        p.check("date_format", self.date_format.as_ref(), |s| line(s, 32, "must be 1 to 32 characters on one line"));
        p.check("usage_report", self.usage_report.as_ref(), usage_report);
        self.people(&mut p);
        self.look(&mut p);
        self.rules(&mut p);
        if let Err(problem) = json_object(&self.custom) {
            p.0.push(("custom".to_owned(), problem));
        }
        p.0
    }

    /// Why the role at which people may join is none that they may get; none when it is, or is not set.
    #[must_use]
    pub fn role_problem(&self, roles: &Roles) -> Option<String> {
        match roles.parse(self.auto_join.role.as_deref()?) {
            Ok(role) if *role == *roles.top() => {
                Some("must not be the top role: nobody becomes that by themselves".to_owned())
            }
            Ok(_) => None,
            Err(problem) => Some(problem),
        }
    }

    fn people(&self, p: &mut Problems) {
        const NAME: &str = "must be 1 to 200 characters on one line";
        const ADDRESS: &str = "must be 1 to 500 characters without control characters other than line ends";
        const SHORT: &str = "must be 1 to 64 characters on one line";
        let (contact, billing) = (&self.contact, &self.billing);
        p.check("contact.name", contact.name.as_ref(), |s| line(s, 200, NAME));
        p.check("contact.email", contact.email.as_ref(), |s| Email::parse(s).map(|_| ()));
        p.check("contact.phone", contact.phone.as_ref(), |s| line(s, 64, SHORT));
        p.check("contact.address", contact.address.as_ref(), |s| lines(s, 500, ADDRESS));
        p.check("contact.website", contact.website.as_ref(), |s| web_address(s, &["https", "http"]));
        p.check("billing.name", billing.name.as_ref(), |s| line(s, 200, NAME));
        p.check("billing.email", billing.email.as_ref(), |s| Email::parse(s).map(|_| ()));
        p.check("billing.address", billing.address.as_ref(), |s| lines(s, 500, ADDRESS));
        p.check("billing.tax_id", billing.tax_id.as_ref(), |s| line(s, 64, SHORT));
        p.check("billing.reference", billing.reference.as_ref(), |s| line(s, 200, NAME));
    }

    fn look(&self, p: &mut Problems) {
        let branding = &self.branding;
        p.check("branding.logo_url", branding.logo_url.as_ref(), |s| web_address(s, &["https"]));
        p.check("branding.primary_color", branding.primary_color.as_ref(), color);
        p.check("branding.secondary_color", branding.secondary_color.as_ref(), color);
        p.check("branding.css", branding.css.as_ref(), css);
        p.check("branding.theme", branding.theme.as_ref(), |s| line(s, 64, "must be 1 to 64 characters on one line"));
    }

    fn rules(&self, p: &mut Problems) {
        const YEARS: (i64, i64) = (0, 3650);
        let (security, compliance) = (&self.security, &self.compliance);
        let seconds = (5 * 60, 365 * 24 * 60 * 60);
        let session = security.session_length_seconds;
        p.range("security.session_length_seconds", session, seconds, "must be 5 minutes to 365 days");
        let attempts = security.max_sign_in_attempts.filter(|n| *n != 0).map(i64::from);
        p.range("security.max_sign_in_attempts", attempts, (3, 100), "must be 3 to 100, or 0 for the server's own");
        let expiry = security.password_expiry_days.map(i64::from);
        p.range("security.password_expiry_days", expiry, YEARS, "must be 1 to 3650 days, or 0 for never");
        let retention = compliance.retention_days.map(i64::from);
        p.range("compliance.retention_days", retention, YEARS, "must be 1 to 3650 days, or 0 for the plan's own");
        for (i, method) in security.sign_in_methods.iter().flatten().enumerate().take(SignInMethods::ALL.len() + 1) {
            let path = format!("security.sign_in_methods[{i}]");
            if !SignInMethods::ALL.contains(&method.as_str()) {
                p.0.push((path, "must be password, oidc or api_key"));
            } else if security.sign_in_methods.iter().flatten().take(i).any(|before| before == method) {
                p.0.push((path, "must name each way once"));
            }
        }
        let days = self.invitations.expiry_days.map(i64::from);
        p.range("invitations.expiry_days", days, (1, 90), "must be 1 to 90 days");
        let role = |s: &str| line(s, 64, "must be the name of a role");
        p.check("auto_join.role", self.auto_join.role.as_ref(), role);
    }
}

/// Whether an object is small and flat enough to be kept: at most 16 KiB of JSON, 32 deep.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn json_object(object: &Map<String, Value>) -> Result<(), &'static str> {
    if object.values().map(depth).max().unwrap_or(0) >= CUSTOM_DEPTH {
        return Err("must be at most 32 deep");
    }
    if object.values().any(has_date) {
        return Err("must not hold dates of TOML: write them as text");
    }
    match serde_json::to_vec(object) {
        Ok(text) if text.len() <= CUSTOM_BYTES => Ok(()),
        _ => Err("must be at most 16 KiB of JSON"),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// TOML has dates and JSON has none; they would read as an object of a private name.
fn has_date(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_date),
        Value::Object(object) => object.iter().any(|(key, value)| key.starts_with("$__toml_") || has_date(value)),
        _ => false,
    }
}

/// Whether a text is a language tag.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn locale(text: &str) -> Result<(), &'static str> {
    let known = text.len() <= 64 && icu_locale_core::Locale::try_from_str(text).is_ok();
    if known { Ok(()) } else { Err("must be a language tag of BCP 47, such as en-US") }
}

fn time_zone(text: &str) -> Result<(), &'static str> {
    match chrono_tz::Tz::from_str(text) {
        Ok(_) => Ok(()),
        Err(_) => Err("must be a name of the IANA time zone database, such as Europe/Berlin"),
    }
}

fn usage_report(text: &str) -> Result<(), &'static str> {
    if ["off", "monthly"].contains(&text) { Ok(()) } else { Err("must be off or monthly") }
}

fn currency(text: &str) -> Result<(), &'static str> {
    let three = text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase());
    if three { Ok(()) } else { Err("must be three capital letters of ISO 4217, such as EUR") }
}

/// Text on one line.
fn line(text: &str, most: usize, problem: &'static str) -> Result<(), &'static str> {
    let fits = !text.is_empty() && text.len() <= most * 4 && text.chars().count() <= most;
    if fits && !text.chars().any(char::is_control) { Ok(()) } else { Err(problem) }
}

/// Text on several lines.
fn lines(text: &str, most: usize, problem: &'static str) -> Result<(), &'static str> {
    let fits = !text.is_empty() && text.len() <= most * 4 && text.chars().count() <= most;
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r');
    if fits && !text.chars().any(control) { Ok(()) } else { Err(problem) }
}

/// An address in the web that names a host and no password. The parser would drop white space, so there must be none.
fn web_address(text: &str, schemes: &[&str]) -> Result<(), &'static str> {
    if text.len() > URL_BYTES {
        return Err("must be at most 2048 bytes long");
    }
    let spaced = text.chars().any(|c| c.is_control() || c.is_whitespace());
    let url = Url::parse(text).ok().filter(|_| !spaced);
    let plain = |url: &Url| url.has_host() && url.username().is_empty() && url.password().is_none();
    match url {
        Some(url) if plain(&url) && schemes.contains(&url.scheme()) => Ok(()),
        _ if schemes.contains(&"http") => Err("must be an http or https address, such as https://example.com"),
        _ => Err("must be an https address, such as https://example.com/logo.svg"),
    }
}

fn color(text: &str) -> Result<(), &'static str> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
    let hex = digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex { Ok(()) } else { Err("must be a colour like #1a2b3c") }
}

/// A style sheet that cannot end the element that it is put in, load others or run scripts in old browsers. Also looked at
/// as a browser reads it: with escapes resolved and comments gone.
fn css(text: &str) -> Result<(), &'static str> {
    const REFUSED: [&str; 3] = ["</style", "@import", "expression("];
    if text.is_empty() || text.len() > CSS_BYTES {
        return Err("must be 1 byte to 32 KiB");
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}')) {
        return Err("must not hold control characters");
    }
    let written = text.to_ascii_lowercase();
    let (read, bare) = (unescape(&written), without_comments(&written));
    let readings = [unescape(&bare), without_comments(&read), written, read, bare];
    if readings.iter().any(|text| REFUSED.iter().any(|word| text.contains(word))) {
        return Err("must not hold </style, @import or expression(");
    }
    Ok(())
}

/// Resolves the escapes of CSS: up to six hexadecimal digits and one white space, or any other character as it is.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(|c| digits.len() < 6 && c.is_ascii_hexdigit()) {
            digits.push(digit);
        }
        if digits.is_empty() {
            plain.extend(chars.next());
            continue;
        }
        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        plain.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
        chars.next_if(char::is_ascii_whitespace);
    }
    plain.to_ascii_lowercase()
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("/*") {
        plain.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}
