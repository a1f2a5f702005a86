//! What makes a password good enough. Length and a list, no composition rules (OWASP ASVS 5.0, 6.2; NIST SP 800-63B).
//! How it is hashed is not decided here.

/// Passwords that are tried first by everybody, of at least eight characters, in lower case and sorted.
const COMMON: &[&str] = &[
    "00000000",
    "11111111",
    "12121212",
    "12312312",
    "123123123",
    "12341234",
    "1234512345",
    "123454321",
    "12345678",
    "123456789",
    "1234567890",
    "123456789a",
    "123456a1",
    "123456abc",
    "123qweasd",
    "147258369",
    "1q2w3e4r",
    "1q2w3e4r5t",
    "1qaz2wsx",
    "22222222",
    "31415926",
    "55555555",
    "66666666",
    "77777777",
    "789456123",
    "87654321",
    "88888888",
    "987654321",
    "99999999",
    "a1b2c3d4",
    "aa123456",
    "aa12345678",
    "abc12345",
    "abcd1234",
    "abcdefgh",
    "abcdefghi",
    "access14",
    "admin123",
    "admin1234",
    "adminadmin",
    "alexander",
    "angel123",
    "asdasdasd",
    "asdf1234",
    "asdfasdf",
    "asdfghjk",
    "asdfghjkl",
    "baseball",
    "basketball",
    "batman123",
    "benjamin",
    "butterfly",
    "caroline",
    "changeme",
    "charlie1",
    "chocolate",
    "christian",
    "christmas",
    "computer",
    "cookie123",
    "danielle",
    "defaultpass",
    "dragon123",
    "einstein",
    "elephant",
    "elizabeth",
    "facebook",
    "ferrari1",
    "football",
    "football1",
    "freedom1",
    "garfield",
    "godzilla",
    "greenday",
    "hello123",
    "hello1234",
    "helloworld",
    "iloveyou",
    "iloveyou1",
    "internet",
    "isabella",
    "jennifer",
    "jessica1",
    "jonathan",
    "jordan23",
    "letmein1",
    "letmein123",
    "liverpool",
    "lovelove",
    "manchester",
    "marlboro",
    "maverick",
    "mercedes",
    "metallica",
    "michael1",
    "michelle",
    "midnight",
    "minecraft",
    "monkey12",
    "monkey123",
    "motorola",
    "mustang1",
    "mypassword",
    "naruto123",
    "nicholas",
    "p@$$w0rd",
    "p@ssw0rd",
    "p@ssword",
    "pa$$word",
    "pa55word",
    "passpass",
    "passw0rd",
    "password",
    "password!",
    "password01",
    "password1",
    "password1!",
    "password12",
    "password123",
    "password1234",
    "password2",
    "password3",
    "pokemon1",
    "princess",
    "princess1",
    "q1w2e3r4",
    "q1w2e3r4t5",
    "qazwsxedc",
    "qwer1234",
    "qwerqwer",
    "qwerty12",
    "qwerty123",
    "qwerty1234",
    "qwertyui",
    "qwertyuiop",
    "rainbow1",
    "rammstein",
    "rootroot",
    "samantha",
    "samsung1",
    "scooby12",
    "secret123",
    "september",
    "serenity",
    "shadow123",
    "skywalker",
    "slipknot",
    "snowball",
    "soccer12",
    "softball",
    "spiderman",
    "startrek",
    "starwars",
    "steelers",
    "sunshine",
    "sunshine1",
    "superman",
    "superman1",
    "superstar",
    "test1234",
    "testtest",
    "thunder1",
    "tinkerbell",
    "trustno1",
    "twilight",
    "undertaker",
    "victoria",
    "wachtwoord",
    "welcome1",
    "welcome123",
    "whatever",
    "william1",
    "winston1",
    "xxxxxxxx",
    "yankees1",
    "zaq12wsx",
    "zaq1zaq1",
    "zxcvbnm1",
    "zxcvbnm123",
];

/// Checks a new password. `context` is what an attacker would try for this person: their address and name.
///
/// # Errors
/// What is wrong with it, as a sentence for the field; never the password.
pub fn check(password: &str, context: &[&str]) -> Result<(), &'static str> {
    if !(8..=128).contains(&password.chars().count()) {
        return Err("must be 8 to 128 characters long");
    }
    let lower = password.to_lowercase();
    if COMMON.binary_search(&lower.as_str()).is_ok() {
        return Err("is among the passwords that are tried first; choose another");
    }
    if lower.chars().all(|c| lower.starts_with(c)) {
        return Err("must not be one character repeated");
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
        assert!(COMMON.is_sorted(), "the binary search needs order");
        let context = ["ann.lee@example.com", "Ann Leesburg"];
        for bad in ["short", "Password1", "xxxxxxxxx", "Leesburg99", "example2024", &"y".repeat(129)] {
            assert!(check(bad, &context).is_err(), "{bad}");
        }
        for good in ["correct horse battery", "Tr0ub4dor&3", "пароль-длинный", &"yz".repeat(64)] {
            assert!(check(good, &context).is_ok(), "{good}");
        }
    }
}
