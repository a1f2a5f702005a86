//! A catalogue's text as TOML, in which every key has its line: so that each problem can say where it is.

use std::fmt::Write as _;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::Problem;

/// How many problems are told at once.
pub(super) const MOST_PROBLEMS: usize = 50;

/// Bytes of a file.
pub(super) const MOST_BYTES: usize = 512 * 1024;

/// Where something is: keys from the outside in, of arrays `[0]`, `[1]`, and so on.
pub(super) type Path = Vec<String>;

/// The path of these keys.
macro_rules! keys {
    ($($key:expr),* $(,)?) => {
        [$(::std::string::ToString::to_string(&$key)),*]
    };
}
pub(super) use keys;

/// The text with what was read of it.
pub(super) struct Text<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Text<'t> {
    /// Parses a text.
    ///
    /// # Errors
    /// All mistakes of TOML, with their lines.
    pub(super) fn parse(text: &'t str) -> Result<Self, Vec<Problem>> {
        if text.len() > MOST_BYTES {
            return Err(vec![problem(0, "", "is larger than 512 KiB")]);
        }
        let (root, mut errors) = DeTable::parse_recoverable(text);
        let this = Self { text, root };
        if errors.is_empty() {
            return Ok(this);
        }
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        let mut problems: Vec<Problem> = Vec::new();
        for error in errors {
            let line = error.span().map_or(0, |span| this.line_at(span.start));
            // What follows a mistake on its line is mostly its echo.
            if problems.last().is_none_or(|last| last.line != line) && problems.len() < MOST_PROBLEMS {
                problems.push(problem(line, "", &format!("is no TOML: {}", error.message())));
            }
        }
        Err(problems)
    }

    /// What was read.
    pub(super) const fn root(&self) -> &Spanned<DeTable<'t>> {
        &self.root
    }

    /// The keys of an outermost table, in the order of their names.
    pub(super) fn keys(&self, table: &str) -> Vec<&str> {
        let table = self.root.get_ref().get(table).and_then(|table| table.get_ref().as_table());
        table.into_iter().flat_map(|table| table.keys()).map(|key| key.get_ref().as_ref()).collect()
    }

    /// The line of a byte, from 1; never beyond the last one.
    pub(super) fn line_at(&self, byte: usize) -> usize {
        let before = self.text.as_bytes().iter().take(byte);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        line.min(self.text.lines().count())
    }

    /// The line of the key at a path, or of the innermost one around it that is written; 0 when none is.
    pub(super) fn line_of(&self, path: &[String]) -> usize {
        let mut at = None;
        let mut outer: Option<&DeValue<'_>> = None;
        for key in path {
            let found = match outer {
                None => entry(self.root.get_ref(), key),
                Some(DeValue::Table(table)) => entry(table, key),
                Some(DeValue::Array(array)) => {
                    index(key).and_then(|i| array.get(i)).map(|value| (value.span(), value.get_ref()))
                }
                Some(_) => None,
            };
            let Some((span, value)) = found else { break };
            at = Some(span.start);
            outer = Some(value);
        }
        at.map_or(0, |byte| self.line_at(byte))
    }
}

fn entry<'a, 't>(table: &'a DeTable<'t>, key: &str) -> Option<(Range<usize>, &'a DeValue<'t>)> {
    table.get_key_value(key).map(|(key, value)| (key.span(), value.get_ref()))
}

/// The number in `[0]`.
fn index(key: &str) -> Option<usize> {
    key.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The path of the smallest key or value that holds a span.
pub(super) fn path_at(root: &DeTable<'_>, span: &Range<usize>) -> Path {
    let mut best = (usize::MAX, Path::new());
    search(root.iter().map(|(key, value)| (key.get_ref().to_string(), key.span(), value)), span, &[], &mut best);
    best.1
}

fn search<'a, 't: 'a>(
    items: impl Iterator<Item = (String, Range<usize>, &'a Spanned<DeValue<'t>>)>,
    span: &Range<usize>,
    outer: &[String],
    best: &mut (usize, Path),
) {
    let holds = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, key_span, value) in items {
        let path: Path = outer.iter().cloned().chain([key]).collect();
        for at in [key_span, value.span()] {
            // Of equals the inner one, which comes later.
            if holds(&at) && at.len() <= best.0 {
                *best = (at.len(), path.clone());
            }
        }
        match value.get_ref() {
            DeValue::Table(table) => {
                let items: Vec<_> = table.iter().map(|(k, v)| (k.get_ref().to_string(), k.span(), v)).collect();
                search(items.into_iter(), span, &path, best);
            }
            DeValue::Array(array) => {
                let items: Vec<_> = array.iter().enumerate().map(|(i, v)| (format!("[{i}]"), v.span(), v)).collect();
                search(items.into_iter(), span, &path, best);
            }
            _ => {}
        }
    }
}

/// Takes out what is at a path; whether there was something.
pub(super) fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    match path {
        [] => false,
        [key] => table.remove(key.as_str()).is_some(),
        [key, rest @ ..] => table.get_mut(key.as_str()).is_some_and(|value| remove_within(value.get_mut(), rest)),
    }
}

fn remove_within(value: &mut DeValue<'_>, path: &[String]) -> bool {
    match (value, path) {
        (DeValue::Table(table), path) => remove(table, path),
        (DeValue::Array(array), [key, rest @ ..]) => {
            let Some(at) = index(key).filter(|at| *at < array.len()) else { return false };
            if !rest.is_empty() {
                return array.get_mut(at).is_some_and(|item| remove_within(item.get_mut(), rest));
            }
            let others = std::mem::replace(array, DeArray::new()).into_iter().enumerate().filter(|(i, _)| *i != at);
            *array = others.map(|(_, item)| item).collect();
            true
        }
        _ => false,
    }
}

/// A path as people write it: `plans.pro.limits`, `permissions."quizzes.mark"`, `rpc_rates[2].count`.
pub(super) fn shown(path: &[String]) -> String {
    let bare = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let mut text = String::new();
    for key in path {
        if index(key).is_some() {
            text.push_str(key);
            continue;
        }
        if !text.is_empty() {
            text.push('.');
        }
        if bare(key) {
            text.push_str(key);
        } else {
            let _ = write!(text, "{key:?}");
        }
    }
    text
}

/// A problem whose words have a bounded length, whatever the file calls things.
pub(super) fn problem(line: usize, path: &str, reason: &str) -> Problem {
    Problem { line, path: cut(path, 100), reason: cut(reason, 300) }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most).chain("...".chars()).collect()
}
