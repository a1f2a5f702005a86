//! What makes a password good enough. Length and a list, no composition rules (OWASP ASVS 5.0, 6.2; NIST SP 800-63B).
//! How it is hashed is not decided here.

/// How many guesses a good attacker needs at most for a password that is refused (zxcvbn's scores 0 and 1): common ones,
/// words and names with what people put behind them, rows of keys, dates, repetitions.
const GUESSED: u64 = 1_000_000;

/// How much of a password the estimate looks at, at either end: its time grows with the square of the length.
const LOOKED_AT: usize = 40;

/// Checks a new password. `context` is what an attacker would try for this person: their address and name.
///
/// # Errors
/// What is wrong with it, as a sentence for the field; never the password.
pub fn check(password: &str, context: &[&str]) -> Result<(), &'static str> {
    if !(8..=128).contains(&password.chars().count()) {
        return Err("must be 8 to 128 characters long");
    }
    let lower = password.to_lowercase();
    let length = password.chars().count();
    let begin: String = password.chars().take(LOOKED_AT).collect();
    let end: String = password.chars().skip(length.saturating_sub(LOOKED_AT)).collect();
    let is_guessed = |part: &str| zxcvbn::zxcvbn(part, context).guesses() < GUESSED;
    if is_guessed(&begin) && (length <= LOOKED_AT || is_guessed(&end)) {
        return Err("is among the passwords that are tried first; choose another");
    }
    let guessable = |word: &str| {
        let word = word.to_lowercase();
        word.chars().count() >= 4 && lower.contains(&word) && lower.chars().count() < word.chars().count() + 6
    };
    let words = context.iter().flat_map(|text| text.split(['@', '.', ' ', '-', '_', '+']).chain([*text]));
    if words.into_iter().any(guessable) {
        return Err("must not be made of your name or address");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_short_and_personal_passwords_are_refused() {
        let context = ["ann.lee@example.com", "Ann Leesburg"];
        let repeated = "yz".repeat(64);
        for bad in
            ["short", "Password1", "xxxxxxxxx", "Leesburg99", "example2024", "qwertyuiop12", "Liverpool1", &repeated]
        {
            assert!(check(bad, &context).is_err(), "{bad}");
        }
        assert!(check(&"y9!k".repeat(33), &context).is_err(), "too long");
        let long = format!("{}{}", "a".repeat(40), "correct horse battery staple, and forty more letters");
        for good in ["correct horse battery", "Tr0ub4dor&3", "пароль-длинный", &long] {
            assert!(check(good, &context).is_ok(), "{good}");
        }
    }
}
