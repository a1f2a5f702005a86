//! Where results go: JSON for scripts, sheets and tables for people, and the words that they are written in.

use std::io::Write;

use prost::Message;
use prost_types::Timestamp as ProtoTimestamp;

use super::table::{plain, table};
use super::{CliError, json};
use crate::rpc::v1::BillingCycle;
use crate::time::Timestamp;

/// The place for results, and the form that they are wanted in.
pub(super) struct Output<'a> {
    /// One JSON object a line, and nothing else.
    pub(super) json: bool,
    /// Where they go.
    pub(super) to: &'a mut (dyn Write + Send),
}

impl Output<'_> {
    /// One message: as JSON, or the text that `people` makes of it.
    pub(super) fn one<M: Message>(
        &mut self,
        name: &str,
        message: &M,
        people: impl FnOnce(&M) -> String,
    ) -> Result<(), CliError> {
        let text = if self.json { json::line(name, message)? } else { people(message) };
        Ok(writeln!(self.to, "{text}")?)
    }

    /// Many of a kind: a line each, or a table.
    pub(super) fn many<M: Message, const N: usize>(
        &mut self,
        name: &str,
        messages: &[M],
        header: [&str; N],
        cells: impl Fn(&M) -> [String; N],
    ) -> Result<(), CliError> {
        if !self.json {
            return Ok(writeln!(self.to, "{}", table(header, messages.iter().map(cells)))?);
        }
        for message in messages {
            writeln!(self.to, "{}", json::line(name, message)?)?;
        }
        Ok(())
    }

    /// A line for people, which scripts do not see.
    pub(super) fn say(&mut self, text: &str) -> Result<(), CliError> {
        if self.json { Ok(()) } else { Ok(writeln!(self.to, "{text}")?) }
    }
}

/// What an answer must have.
///
/// # Errors
/// `Failed` when the server left it out.
pub(super) fn present<T>(part: Option<T>) -> Result<T, CliError> {
    part.ok_or_else(|| CliError::Failed("the server's answer lacks what was asked for".to_owned()))
}

/// Facts for people, one a line; those without a value are left out.
pub(super) fn sheet(facts: &[(&str, String)]) -> String {
    let facts: Vec<_> = facts.iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(7) + 2;
    facts.iter().map(|(name, value)| format!("{name:<width$}{}", plain(value))).collect::<Vec<_>>().join("\n")
}

/// What is printed once, below the facts of what it belongs to. `what` begins the sentence.
pub(super) fn once(facts: &str, what: &str, secret: &str) -> String {
    format!("{facts}\n\n{what}, shown this once and never again:\n\n    {}\n", plain(secret))
}

/// A time in whole seconds; nothing when there is none.
pub(super) fn time(at: Option<ProtoTimestamp>) -> String {
    let shown = |t: ProtoTimestamp| Timestamp::from_micros(t.seconds.saturating_mul(1_000_000)).to_string();
    at.map(shown).unwrap_or_default()
}

/// The last words of an enum's name; nothing when it is not said, its number when the server is newer than this program.
pub(super) fn word<E: TryFrom<i32>>(number: i32, prefix: &str, name: impl Fn(&E) -> &'static str) -> String {
    match E::try_from(number) {
        Ok(_) if number == 0 => String::new(),
        Ok(value) => name(&value).trim_start_matches(prefix).to_ascii_lowercase().replace('_', " "),
        Err(_) => number.to_string(),
    }
}

/// A cycle in one word.
pub(super) fn cycle(number: i32) -> String {
    word(number, "BILLING_CYCLE_", BillingCycle::as_str_name)
}

/// A number or, when there is none, what that means.
pub(super) fn number(value: Option<i64>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |n| n.to_string())
}

/// Yes or no.
pub(super) fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Currencies whose minor unit is not a hundredth (ISO 4217), with their decimal places.
const PLACES: &[(usize, &[&str])] = &[
    (
        0,
        &[
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
            "XOF", "XPF",
        ],
    ),
    (3, &["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]),
    (4, &["CLF", "UYW"]),
];

/// An amount of minor units with its currency: `EUR 29.00`.
pub(super) fn money(amount: i64, currency: &str) -> String {
    let places = PLACES.iter().find(|(_, of)| of.contains(&currency)).map_or(2, |(places, _)| *places);
    let digits = format!("{:0>width$}", amount.unsigned_abs(), width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    let sign = if amount < 0 { "-" } else { "" };
    let point = if part.is_empty() { "" } else { "." };
    format!("{currency} {sign}{whole}{point}{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_the_places_of_its_currency() {
        assert_eq!(money(2900, "EUR"), "EUR 29.00");
        assert_eq!(money(5, "USD"), "USD 0.05");
        assert_eq!(money(-1234, "JPY"), "JPY -1234");
        assert_eq!(money(1, "KWD"), "KWD 0.001");
    }
}
