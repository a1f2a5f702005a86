//! The second step of a sign-in: codes of an authenticator (TOTP, RFC 6238, in the form that every app knows: SHA-1, six
//! digits, thirty seconds), recovery codes, and the token of a sign-in that waits for one of them.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use chrono::TimeDelta;
use totp_rs::{Algorithm, Builder, Totp};
use uuid::Uuid;

use super::base62;
use super::id::UserId;
use super::name::Email;
use super::seal::MasterKey;
use super::secret::{Secret, sha256};
use crate::entropy;
use crate::time::Timestamp;

/// How long a sign-in waits for its second step.
pub const CHALLENGE_LIFETIME: TimeDelta = TimeDelta::minutes(5);

/// How many codes may be tried in one sign-in.
pub const CHALLENGE_ATTEMPTS: i64 = 5;

/// How many codes of an authenticator may be tried in sign-ins to an account from devices that it does not know, on each that
/// it knows, and in each session: 30 an hour leave a guesser, for whom three of a million codes are good at a time, one chance
/// in ten thousand an hour, who must have the password as well. A right code does not count. Nobody guesses a recovery code.
pub const CODE_RATE: (u16, TimeDelta) = (30, TimeDelta::hours(1));

/// How many recovery codes there are at a time.
pub const RECOVERY_CODES: usize = 10;

/// How many base32 characters one has: 120 bits, so that SHA-256 is enough to store it.
const RECOVERY_LENGTH: usize = 24;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// An authenticator's secret, 160 bits.
pub struct Authenticator {
    totp: Totp,
}

impl Authenticator {
    /// A new random one, under the names that the app shows.
    #[must_use]
    pub fn generate(issuer: &str, account: &Email) -> Self {
        Self::new(&entropy::bytes::<20>(), issuer, account)
    }

    /// One with this secret.
    #[must_use]
    pub fn new(secret: &[u8], issuer: &str, account: &Email) -> Self {
        // The URI's label has a colon between the two.
        let plain = |text: &str| text.replace(':', " ");
        let totp = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(6)
            .with_skew(1)
            .with_step_duration(30)
            .with_secret(secret.to_vec())
            .with_account_name(plain(account.as_str()))
            .with_issuer(Some(plain(issuer)))
            .build_noncompliant();
        Self { totp }
    }

    /// One with this secret, as it was shown; none when it is no base32.
    #[must_use]
    pub fn from_base32(text: &Secret<String>, issuer: &str, account: &Email) -> Option<Self> {
        let secret = totp_rs::Secret::try_from_base32(text.expose()).ok()?;
        Some(Self::new(secret.as_bytes(), issuer, account))
    }

    /// The code that the app shows at a time.
    #[must_use]
    pub fn code_at(&self, now: Timestamp) -> Secret<String> {
        Secret::new(self.totp.generate(u64::try_from(now.seconds()).unwrap_or(0)).to_string())
    }

    /// The secret itself, to be sealed.
    #[must_use]
    pub fn secret(&self) -> Secret<Vec<u8>> {
        Secret::new(self.totp.secret().as_bytes().to_vec())
    }

    /// The secret for whoever types it into an app.
    #[must_use]
    pub fn base32(&self) -> Secret<String> {
        Secret::new(self.totp.secret().to_base32())
    }

    /// The `otpauth` URI; none when the names do not fit into one.
    #[must_use]
    pub fn uri(&self) -> Option<Secret<String>> {
        self.totp.to_url().ok().map(Secret::new)
    }

    /// The URI as a QR code, a PNG picture.
    #[must_use]
    pub fn qr_png(&self) -> Option<Secret<Vec<u8>>> {
        self.totp.to_qr_png().ok().map(Secret::new)
    }

    /// The step of time that a code is of; none when it is no code of now, of the step before or of the one after.
    #[must_use]
    pub fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let code: String = code.chars().filter(|c| *c != ' ').collect();
        if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let seconds = u64::try_from(now.seconds()).ok()?;
        self.totp.check(&code, seconds).and_then(|step| i64::try_from(step).ok())
    }
}

/// New recovery codes.
#[must_use]
pub fn recovery_codes() -> Vec<Secret<String>> {
    let one = || {
        let bytes = entropy::bytes::<RECOVERY_LENGTH>();
        Secret::new(bytes.iter().map(|byte| char::from(BASE32[usize::from(byte % 32)])).collect())
    };
    std::iter::repeat_with(one).take(RECOVERY_CODES).collect()
}

/// What is stored of a recovery code, as a person types it: case, blanks and hyphens do not matter. None when it was never
/// one.
#[must_use]
pub fn recovery_digest(text: &str) -> Option<[u8; 32]> {
    if text.len() > 64 {
        return None;
    }
    let code: String = text.chars().filter(|c| *c != ' ' && *c != '-').map(|c| c.to_ascii_uppercase()).collect();
    let good = code.len() == RECOVERY_LENGTH && code.bytes().all(|b| BASE32.contains(&b));
    good.then(|| sha256(code.as_bytes()))
}

/// How it begins.
const PREFIX: &str = "tnc_";

/// User 16, random 32, MAC 16.
const BYTES: usize = 64;

/// What the MAC is over.
const BODY: usize = BYTES - 16;

/// What a sign-in that waits for its second step is known by: `tnc_` and base62. In it stand whose it is, 256 random bits
/// and a MAC, so that what we never made touches no row.
pub struct Challenge {
    /// Who signs in.
    pub user_id: UserId,
    /// The whole text.
    pub text: Secret<String>,
}

impl Challenge {
    /// A new one.
    #[must_use]
    pub fn generate(master: &MasterKey, user_id: UserId) -> Self {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(user_id.0.as_bytes());
        bytes[16..BODY].copy_from_slice(&entropy::bytes::<32>());
        let mac = mac(master, &bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&mac);
        Self { user_id, text: Secret::new(format!("{PREFIX}{}", base62::encode(&bytes))) }
    }

    /// Reads one; none when we never made it.
    #[must_use]
    pub fn parse(master: &MasterKey, text: &str) -> Option<Self> {
        let bytes = base62::decode::<BYTES>(text.strip_prefix(PREFIX)?)?;
        verify_slices_are_equal(&mac(master, &bytes[..BODY]), &bytes[BODY..]).ok()?;
        let user_id = UserId(Uuid::from_slice(&bytes[..16]).ok()?);
        Some(Self { user_id, text: Secret::new(text.to_owned()) })
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.text.expose().as_bytes())
    }
}

fn mac(master: &MasterKey, body: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&master.mac("challenge", &[body])[..16]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzz::{fuzz, master, texts};

    fn authenticator() -> Authenticator {
        Authenticator::new(b"12345678901234567890", "tenantry", &Email::parse("ada@example.com").unwrap())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// The last six digits of RFC 6238's own examples.
    #[test]
    fn codes_are_those_of_the_standard() {
        for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924")] {
            assert_eq!(authenticator().step_of(code, at(seconds)), Some(seconds / 30), "{seconds}");
        }
    }

    #[test]
    fn a_code_is_good_for_its_step_and_the_ones_beside_it() {
        let step = 1_111_111_109 / 30;
        for (seconds, good) in [(-31, true), (0, true), (1, true), (30, true), (60, false), (-60, false)] {
            let found = authenticator().step_of("081 804", at(1_111_111_109 + seconds));
            assert_eq!(found, good.then_some(step), "{seconds}");
        }
    }

    #[test]
    fn the_uri_names_the_account_and_the_picture_is_one() {
        let uri = authenticator().uri().unwrap();
        assert!(uri.expose().starts_with("otpauth://totp/tenantry:ada%40example.com?"), "{}", uri.expose());
        assert!(uri.expose().contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"));
        assert!(uri.expose().contains("issuer=tenantry"));
        assert!(authenticator().qr_png().unwrap().expose().starts_with(b"\x89PNG"));
    }

    #[test]
    fn recovery_codes_are_read_as_people_type_them() {
        let codes = recovery_codes();
        assert_eq!(codes.len(), RECOVERY_CODES);
        let code = codes[0].expose();
        assert_eq!(code.len(), 24);
        let typed = format!("{} {}-{}", &code[..6].to_lowercase(), &code[6..12], &code[12..]);
        assert_eq!(recovery_digest(&typed), recovery_digest(code));
        assert_ne!(recovery_digest(code), recovery_digest(codes[1].expose()));
        assert_eq!(recovery_digest(&code[1..]), None);
    }

    #[test]
    fn a_challenge_reads_back_and_a_changed_one_does_not() {
        let challenge = Challenge::generate(&master(), UserId(Uuid::from_u128(1)));
        let text = challenge.text.expose();
        let again = Challenge::parse(&master(), text).unwrap();
        assert_eq!((again.user_id, again.digest()), (challenge.user_id, challenge.digest()));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert!(Challenge::parse(&master(), std::str::from_utf8(&bytes).unwrap()).is_none(), "changed at {at}");
        }
        assert!(Challenge::parse(&MasterKey::new(&Secret::new([8; 32])), text).is_none());
    }

    #[test]
    fn a_fuzzed_code_is_read_only_in_its_time() {
        let steps = [0, 1, 2, 1_000_000, 60_000_000];
        let own = steps.map(|step| authenticator().code_at(at(step * 30)).expose().clone());
        let times = prop_oneof![3 => (0_usize..5, -90_i64..90).prop_map(move |(i, by)| steps[i] * 30 + by), 1 => any::<i32>().prop_map(i64::from)];
        let blanks = (0_usize..5, vec(0_usize..7, 0..4)).prop_map({
            let own = own.clone();
            move |(i, blanks)| {
                blanks.into_iter().fold(own[i].clone(), |mut code, at| {
                    code.insert(at, ' ');
                    code
                })
            }
        });
        let codes = prop_oneof![3 => texts(&own), 1 => blanks];
        fuzz("TOTP code", (codes, times), |(text, seconds)| {
            let Some(step) = authenticator().step_of(&text, at(seconds)) else { return Ok(false) };
            prop_assert!((step - seconds.div_euclid(30)).abs() <= 1, "{text} of {step} at {seconds}");
            prop_assert_eq!(text.replace(' ', ""), authenticator().code_at(at(step * 30)).expose().clone());
            Ok(true)
        });
    }

    #[test]
    fn a_fuzzed_recovery_code_is_read_as_it_is_typed() {
        let own: Vec<String> = recovery_codes().iter().map(|code| code.expose().clone()).collect();
        let typed = (0_usize..RECOVERY_CODES, vec((0_usize..24, "[ -]"), 0..9)).prop_map({
            let own = own.clone();
            move |(i, blanks)| {
                blanks.into_iter().fold(own[i].to_lowercase(), |mut code, (at, c)| {
                    code.insert_str(at, &c);
                    code
                })
            }
        });
        fuzz("recovery code", prop_oneof![3 => texts(&own), 1 => typed], |text| {
            let read = recovery_digest(&text);
            let code = text.replace([' ', '-'], "").to_ascii_uppercase();
            let good = text.len() <= 64 && code.len() == 24 && code.chars().all(|c| matches!(c, 'A'..='Z' | '2'..='7'));
            prop_assert_eq!(read, good.then(|| sha256(code.as_bytes())));
            Ok(good)
        });
    }

    #[test]
    fn a_fuzzed_challenge_is_read_only_when_it_is_whole() {
        let challenge = |n| Challenge::generate(&master(), UserId(Uuid::from_u128(n))).text.expose().clone();
        let own = [1, 2, u128::MAX].map(challenge);
        let bytes = vec(any::<u8>(), BYTES).prop_map(|bytes| format!("{PREFIX}{}", base62::encode(&bytes)));
        fuzz("challenge", prop_oneof![7 => texts(&own), 1 => bytes], |text| {
            let read = Challenge::parse(&master(), &text).is_some();
            prop_assert_eq!(read, own.contains(&text));
            Ok(read)
        });
    }

    proptest! {
        #[test]
        fn no_other_digits_are_a_code(code in "[0-9]{6}") {
            let good = ["287082", "755224", "359152"];
            prop_assume!(!good.contains(&code.as_str()));
            prop_assert_eq!(authenticator().step_of(&code, at(59)), None);
        }
    }
}
