//! A catalogue's file as it is written: which keys there are and of which type. What is wrong with one key does not hide
//! what is wrong with the others: it is noted and taken out, and the rest is read again.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::de::Deserializer;

use super::check::Check;
use super::text::{MOST_PROBLEMS, Path, Text, path_at, problem, remove, shown};
use super::{Definition, Metric, Problem, RpcRate, Template};
use crate::domain::plan::Plan;
use crate::domain::settings::Settings;

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) default_plan: String,
    #[serde(default)]
    pub(super) metrics: BTreeMap<String, Metric>,
    #[serde(default)]
    pub(super) features: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) permissions: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) roles: BTreeMap<String, RoleText>,
    #[serde(default)]
    pub(super) plans: BTreeMap<String, Plan>,
    #[serde(default)]
    pub(super) templates: BTreeMap<String, Template>,
    #[serde(default)]
    pub(super) settings: Settings,
    #[serde(default = "default_notice_days")]
    pub(super) notice_days: Vec<u16>,
    #[serde(default)]
    pub(super) rpc_rates: Vec<RpcRate>,
}

fn default_notice_days() -> Vec<u16> {
    vec![7, 1]
}

/// A role.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleText {
    pub(super) rank: i64,
    #[serde(default)]
    pub(super) permissions: Vec<String>,
    /// A role whose permissions this one has as well.
    #[serde(default)]
    pub(super) includes: Option<String>,
    /// Whether new members get it when nobody says.
    #[serde(default)]
    pub(super) default: bool,
}

impl Definition {
    /// Reads a catalogue that is kept: methods that rates are about may have gone since.
    ///
    /// # Errors
    /// All that is wrong, up to 50 problems, each with its line.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        Self::read(text, None)
    }

    /// Reads a catalogue that is to be put in force. `methods` are all that a rate may be about.
    ///
    /// # Errors
    /// As `parse`.
    pub fn parse_new(text: &str, methods: &[&str]) -> Result<Self, Vec<Problem>> {
        Self::read(text, Some(methods))
    }

    fn read(text: &str, methods: Option<&[&str]>) -> Result<Self, Vec<Problem>> {
        let text = Text::parse(text)?;
        let (file, mut problems) = file(&text);
        if let Some(file) = file {
            let mut check = Check::new(&text, problems);
            let definition = check.definition(file, methods);
            problems = check.problems;
            if let Some(definition) = definition.filter(|_| problems.is_empty()) {
                return Ok(definition);
            }
        }
        problems.sort_by_key(|problem| problem.line);
        problems.truncate(MOST_PROBLEMS);
        Err(problems)
    }
}

/// What can be read, and what was taken out because it cannot. No file when too much is wrong.
fn file(text: &Text<'_>) -> (Option<File>, Vec<Problem>) {
    let mut root = text.root().clone();
    let mut problems = Vec::new();
    let mut removed: Vec<Path> = Vec::new();
    while problems.len() < MOST_PROBLEMS {
        let error = match File::deserialize(Deserializer::from(root.clone())) {
            Ok(file) => return (Some(file), problems),
            Err(error) => error,
        };
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        // What is missing at the top has the whole file's place.
        let at = match error.span() {
            Some(span) if span != text.root().span() => path_at(root.get_ref(), &span),
            _ => Path::new(),
        };
        let absent = missing.map(|key| at.iter().cloned().chain([key.to_owned()]).collect::<Path>());
        // A key that was taken out is missed, but that has been told.
        if absent.is_none_or(|path| !removed.contains(&path)) {
            let line = if at.is_empty() { 0 } else { line(text, &at, error.span().map(|span| span.start)) };
            problems.push(problem(line, &shown(&at), &reason(error.message(), &at)));
        }
        if !remove(root.get_mut(), &at) {
            return (None, problems);
        }
        removed.push(at);
    }
    (None, problems)
}

/// Items of arrays move up when one is taken out, so there the place of the error itself counts.
fn line(text: &Text<'_>, path: &[String], byte: Option<usize>) -> usize {
    byte.map_or_else(|| text.line_of(path), |byte| text.line_at(byte))
}

/// The words of serde in ours.
fn reason(message: &str, path: &[String]) -> String {
    if path.first().is_some_and(|key| key == "permissions") && message.contains("invalid type: map") {
        return "write the permission in quotation marks: \"quizzes.mark\" = \"what it allows\"".to_owned();
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("{key} is missing");
    }
    let types = [
        ("expected i64", "expected a whole number"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected i32", "expected a whole number"),
        ("expected a sequence", "expected a list such as [\"a\", \"b\"]"),
        ("expected a map", "expected a table"),
        ("invalid type: map", "invalid type: a table"),
        ("unknown field", "there is no key"),
        ("unknown variant", "there is no"),
    ];
    let mut text = message.to_owned();
    for (theirs, ours) in types {
        text = text.replace(theirs, ours);
    }
    if let Some((before, _)) = text.split_once("expected struct ") {
        text = format!("{before}expected a table");
    }
    text
}
