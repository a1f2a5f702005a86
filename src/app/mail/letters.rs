//! How letters read: a text for each letter and locale, put into one layout of text and one of HTML. An operator may replace
//! any of them by files. What a message speaks of is only ever a value in a text, and a text only ever a value in the
//! layout, so that HTML is escaped once and nobody's name is mark-up.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use chrono::DateTime;
use chrono_tz::Tz;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, UndefinedBehavior, context};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::domain::id::UserId;
use crate::domain::mail::Template;
use crate::domain::name::Email;
use crate::domain::secret::Secret;
use crate::outside::Letter;
use crate::store::outbox::{Owner, Status, Written};
use crate::time::Timestamp;

/// The locale that has every letter.
const FALLBACK: &str = "en";

/// The colour of what is not a tenant's, and of tenants without one.
const COLOR: &str = "#2f5bd3";

/// How letters of somebody look.
#[derive(Debug, Clone, Default)]
pub struct Brand {
    /// The name that they are in; the platform's own when none.
    pub name: Option<String>,
    /// Where the logo is.
    pub logo_url: Option<String>,
    /// `#rrggbb`.
    pub color: Option<String>,
    /// BCP 47.
    pub locale: Option<String>,
    /// IANA name; times are told in it.
    pub time_zone: Option<String>,
}

/// The text of a letter in one locale. Each part is a template of its own; a line that comes out empty is left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    subject: String,
    lines: Vec<String>,
    /// What stands on the link.
    #[serde(default)]
    action: String,
    /// In small print at the end.
    #[serde(default)]
    note: String,
}

/// All letters.
pub struct Letters {
    env: Environment<'static>,
    /// By locale in lower case, then by letter.
    texts: HashMap<String, BTreeMap<String, Text>>,
    public_url: Url,
    platform: String,
}

/// Why the operator's letters cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct LettersError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl Letters {
    /// The name that letters are in which are of no tenant.
    #[must_use]
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The built-in letters, and over them the files of a directory: `<locale>.toml` with texts, `letter.txt` and
    /// `letter.html` as layouts of all letters, `<letter>.txt` and `<letter>.html` of one. Links lead below `public_url`;
    /// letters that are of no tenant are in the name of `platform`.
    ///
    /// # Errors
    /// The first file that cannot be read, or is not what its name says.
    pub fn load(directory: Option<&Path>, public_url: Url, platform: String) -> Result<Self, LettersError> {
        let broken = |name: &str, problem: String| LettersError { path: PathBuf::from(name), problem };
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| broken("syntax", e.to_string()))?);
        let mut letters = Self { env, texts: HashMap::new(), public_url, platform };
        for (name, text) in [
            ("letter.txt", include_str!("letters/letter.txt")),
            ("letter.html", include_str!("letters/letter.html")),
            ("en.toml", include_str!("letters/en.toml")),
            ("de.toml", include_str!("letters/de.toml")),
        ] {
            letters.add(name, text).map_err(|problem| broken(name, problem))?;
        }
        let Some(directory) = directory else { return Ok(letters) };
        let wrong = |path: &Path, e: std::io::Error| LettersError { path: path.to_owned(), problem: e.to_string() };
        let entries = std::fs::read_dir(directory).map_err(|e| wrong(directory, e))?;
        let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        for path in paths.map_err(|e| wrong(directory, e))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name.starts_with('.') || path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|e| wrong(&path, e))?;
            letters.add(&name, &text).map_err(|problem| LettersError { path, problem })?;
        }
        letters.try_all().map_err(|problem| LettersError { path: directory.to_owned(), problem })?;
        Ok(letters)
    }

    /// Writes every letter once, in every locale: a text that speaks of what its letter has not would be found out by those
    /// who wait for it.
    fn try_all(&self) -> Result<(), String> {
        for template in Template::ALL {
            for (locale, texts) in &self.texts {
                if !texts.contains_key(template.as_str()) {
                    continue;
                }
                let brand = Brand { locale: Some(locale.clone()), ..Brand::default() };
                let letter = sample(*template).and_then(|sample| self.write(*template, &sample, &brand, None));
                let of = template.as_str();
                letter.map_err(|problem| format!("{locale}.toml, {of}.txt or {of}.html: {problem}"))?;
            }
        }
        Ok(())
    }

    /// Takes a file, by its name.
    fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        match name.rsplit_once('.') {
            Some((locale, "toml")) => self.add_texts(locale, text),
            Some((letter, "txt" | "html")) if letter == "letter" || Template::parse(letter).is_some() => {
                self.env.add_template_owned(name.to_owned(), text.to_owned()).map_err(|e| e.to_string())
            }
            Some((letter, "txt" | "html")) => Err(format!("there is no letter {letter}; {}", names())),
            _ => Err("is neither <locale>.toml nor letter or <letter> with .txt or .html".to_owned()),
        }
    }

    fn add_texts(&mut self, locale: &str, toml: &str) -> Result<(), String> {
        let texts: BTreeMap<String, Text> = toml::from_str(toml).map_err(|e| e.to_string())?;
        for (letter, text) in &texts {
            if Template::parse(letter).is_none() {
                return Err(format!("there is no letter {letter}; {}", names()));
            }
            for part in text.lines.iter().chain([&text.subject, &text.action, &text.note]) {
                self.env.template_from_named_str("text", part).map_err(|e| format!("{letter}: {e}"))?;
            }
        }
        self.texts.entry(locale.to_lowercase()).or_default().extend(texts);
        Ok(())
    }

    /// The locales that there are texts in.
    #[cfg(test)]
    fn locales(&self) -> Vec<String> {
        let mut locales: Vec<String> = self.texts.keys().cloned().collect();
        locales.sort();
        locales
    }

    /// The text of a letter in a locale, or its language, or the fallback; with the locale that it is in.
    fn text(&self, template: Template, locale: Option<&str>) -> Option<(&str, &Text)> {
        let wish = locale.unwrap_or_default().to_lowercase();
        let language = wish.split('-').next().unwrap_or_default();
        let found = |locale: &str| {
            let (name, texts) = self.texts.get_key_value(locale)?;
            Some((name.as_str(), texts.get(template.as_str())?))
        };
        found(&wish).or_else(|| found(language)).or_else(|| found(FALLBACK))
    }

    /// The link of a letter; empty when it has none.
    #[must_use]
    pub fn link(&self, template: Template, secret: Option<&Secret<String>>) -> String {
        if template.path().is_empty() {
            return String::new();
        }
        let mut link = self.public_url.clone();
        let path = format!("{}{}", self.public_url.path().trim_end_matches('/'), template.path());
        link.set_path(&path);
        if let Some(secret) = secret {
            link.query_pairs_mut().append_pair("token", secret.expose());
        }
        link.into()
    }

    /// Writes a letter.
    ///
    /// # Errors
    /// That its text speaks of something that the message has not, or is no template.
    pub fn write(
        &self,
        template: Template,
        message: &Written,
        brand: &Brand,
        secret: Option<&Secret<String>>,
    ) -> Result<Letter, String> {
        let (locale, text) = self.text(template, brand.locale.as_deref()).ok_or("has no text")?;
        let platform = brand.name.clone().unwrap_or_else(|| self.platform.clone());
        let zone: Tz = brand.time_zone.as_deref().and_then(|zone| zone.parse().ok()).unwrap_or(Tz::UTC);
        let mut values = shown(&message.payload, zone);
        values.entry("tenant".to_owned()).or_insert_with(|| Jinja::from(platform.as_str()));
        values.insert("platform".to_owned(), Jinja::from(platform.as_str()));
        let values = Jinja::from_pairs(values);
        let part = |part: &str| -> Result<String, String> {
            let line = self.env.render_named_str("text", part, values.clone());
            line.map(|line| line.trim().to_owned()).map_err(|e| format!("{}: {e}", template.as_str()))
        };
        let lines: Result<Vec<String>, String> = text.lines.iter().map(|line| part(line)).collect();
        let (subject, action) = (part(&text.subject)?, part(&text.action)?);
        let link = if action.is_empty() { String::new() } else { self.link(template, secret) };
        let filled = context! {
            locale, action, link,
            subject => subject.as_str(),
            lines => lines?.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
            note => part(&text.note)?,
            brand => context! {
                name => platform,
                logo_url => brand.logo_url.as_deref().unwrap_or_default(),
                color => brand.color.as_deref().unwrap_or(COLOR),
            },
            values,
        };
        let layout = |kind: &str| {
            let own = format!("{}.{kind}", template.as_str());
            let layout = self.env.get_template(&own).or_else(|_| self.env.get_template(&format!("letter.{kind}")));
            layout.and_then(|layout| layout.render(filled.clone())).map_err(|e| format!("{}: {e}", template.as_str()))
        };
        Ok(Letter {
            id: message.message_id.to_string(),
            to: message.recipient.clone(),
            subject,
            text: layout("txt")?,
            html: layout("html")?,
            at: message.created_at,
        })
    }
}

/// A message with all that its letter is sure to have, and nothing else.
fn sample(template: Template) -> Result<Written, String> {
    let value = |key: &str| match key {
        "days" | "percent" | "used" | "limit" => Value::from(7),
        "at" | "expires_at" | "since" => Value::from("2030-06-01T10:00:00Z"),
        "change" => Value::from("enabled"),
        key => Value::from(format!("<b>{key}</b>")),
    };
    let payload = template.keys().iter().map(|key| ((*key).to_owned(), value(key)));
    Ok(Written {
        message_id: Uuid::nil(),
        owner: Owner::Person(UserId(Uuid::nil())),
        template: Some(template),
        recipient: Email::parse("ada@example.com")?,
        payload: payload.collect::<serde_json::Map<_, _>>().into(),
        sealed: None,
        status: Status::Waiting,
        created_at: Timestamp::from_micros(0),
    })
}

/// The values of a payload as a letter shows them: on one line, times in the reader's zone.
fn shown(payload: &Value, zone: Tz) -> BTreeMap<String, Jinja> {
    let value = |value: &Value| match value {
        Value::String(text) => Jinja::from(DateTime::parse_from_rfc3339(text).map_or_else(
            |_| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>(),
            |at| at.with_timezone(&zone).format("%Y-%m-%d %H:%M %Z").to_string(),
        )),
        Value::Bool(yes) => Jinja::from(*yes),
        Value::Number(number) => number.as_i64().map_or_else(|| Jinja::from(number.to_string()), Jinja::from),
        Value::Null => Jinja::from(()),
        other => Jinja::from(other.to_string()),
    };
    let object = payload.as_object();
    object.map(|object| object.iter().map(|(key, v)| (key.clone(), value(v))).collect()).unwrap_or_default()
}

fn names() -> String {
    let names: Vec<&str> = Template::ALL.iter().map(|template| template.as_str()).collect();
    format!("there are {}", names.join(", "))
}

#[cfg(test)]
mod tests;
