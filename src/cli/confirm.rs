//! The question before something is destroyed: the operator types the tenant's slug, or the person's address, as the server
//! knows it.

use std::io::{self, BufRead, IsTerminal as _, Write};

use clap::Args;

use super::CliError;
use super::table::plain;
use crate::rpc::v1::{Tenant, User};

/// The flag of commands that destroy.
#[derive(Args, Debug)]
pub(super) struct Confirm {
    /// Do not ask; for scripts
    #[arg(long)]
    yes: bool,
}

impl Confirm {
    /// Says before anything else that nobody is there to be asked.
    ///
    /// # Errors
    /// `Unconfirmed` without a terminal and without `--yes`.
    pub(super) fn possible(&self) -> Result<(), CliError> {
        if self.yes || io::stdin().is_terminal() { Ok(()) } else { Err(CliError::Unconfirmed) }
    }

    /// Asks on the terminal whether to go on, unless `--yes` was said. For what can be taken back.
    ///
    /// # Errors
    /// `Failed` unless the answer is yes.
    pub(super) fn agree(&self, question: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        agree(&mut io::stdin().lock(), &mut io::stderr(), question)
    }

    /// Asks on the terminal, unless `--yes` was said. `what` completes "This ...".
    ///
    /// # Errors
    /// `NotConfirmed` when something else than the slug is typed.
    pub(super) fn ask(&self, tenant: &Tenant, what: &str) -> Result<(), CliError> {
        self.named("slug", &tenant.slug, &tenant.display_name, what)
    }

    /// The same about a person, whose address is typed.
    ///
    /// # Errors
    /// `NotConfirmed` when something else is typed.
    pub(super) fn ask_about(&self, person: &User, what: &str) -> Result<(), CliError> {
        self.named("address", &person.email, &person.display_name, what)
    }

    fn named(&self, kind: &'static str, word: &str, name: &str, what: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        ask(&mut io::stdin().lock(), &mut io::stderr(), (kind, word, name), what)
    }
}

fn ask(
    from: &mut dyn BufRead,
    to: &mut dyn Write,
    (kind, word, name): (&'static str, &str, &str),
    what: &str,
) -> Result<(), CliError> {
    write!(to, "This {what}: {} ({}).\nType the {kind} to go on: ", plain(word), plain(name))?;
    to.flush()?;
    let mut typed = String::new();
    from.read_line(&mut typed)?;
    if typed.trim() == word { Ok(()) } else { Err(CliError::NotConfirmed { kind, word: word.to_owned() }) }
}

fn agree(from: &mut dyn BufRead, to: &mut dyn Write, question: &str) -> Result<(), CliError> {
    write!(to, "{} [y/N] ", plain(question))?;
    to.flush()?;
    let mut typed = String::new();
    from.read_line(&mut typed)?;
    match typed.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Failed("nothing was done".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(typed: &str) -> (Result<(), CliError>, String) {
        let mut asked = Vec::new();
        let result = ask(&mut typed.as_bytes(), &mut asked, ("slug", "acme", "Acme\x1b Ltd"), "deletes a tenant");
        (result, String::from_utf8(asked).unwrap())
    }

    #[test]
    fn only_yes_agrees() {
        let answer = |typed: &str| agree(&mut typed.as_bytes(), &mut Vec::new(), "Go on?");
        assert!(answer("y\n").is_ok() && answer("Yes\n").is_ok());
        for other in ["", "\n", "n\n", "yess\n"] {
            assert!(answer(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn only_the_slug_confirms() {
        let (result, asked) = answer("acme\n");
        assert!(result.is_ok() && asked.contains("deletes a tenant: acme (Acme\u{fffd} Ltd)"), "{asked}");
        for other in ["", "\n", "y\n", "yes\n", "acm\n", "acme2\n", "ACME\n"] {
            assert!(matches!(answer(other).0, Err(CliError::NotConfirmed { .. })), "{other:?}");
        }
    }
}
