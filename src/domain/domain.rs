//! Custom domains: how they are written, what proves them, and how they stand as time passes. A domain is proven by a TXT
//! record that only its holder can publish; it stays the tenant's for as long as the record is there.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::secret::random_base62;
use crate::time::Timestamp;

/// How many a tenant may have.
pub const MAX_DOMAINS: usize = 50;

/// How long a proven domain stays the tenant's after its record was first missed.
pub const LAPSE_AFTER: TimeDelta = TimeDelta::days(3);

/// How often a proven domain is looked at.
const EVERY: TimeDelta = TimeDelta::days(1);

/// How often a domain is looked at that is pending or whose record is gone, or whose name server did not answer.
const SOON: TimeDelta = TimeDelta::hours(1);

/// How long a pending domain is looked at by itself; later only when somebody asks.
const PENDING_FOR: TimeDelta = TimeDelta::days(3);

/// Before the domain stands this in the name of its TXT record.
const CHALLENGE_LABEL: &str = "_tenantry-challenge";

/// What a challenge begins with, so that people see what the record is for.
const TOKEN_PREFIX: &str = "tenantry-verification=";

/// Who gives addresses to everybody: a tenant that had proven one of these would stand for all who have an address there.
/// Sorted.
const MAIL_PROVIDERS: &[&str] = &[
    "126.com",
    "163.com",
    "aim.com",
    "aol.com",
    "att.net",
    "bluewin.ch",
    "btinternet.com",
    "comcast.net",
    "cox.net",
    "daum.net",
    "docomo.ne.jp",
    "duck.com",
    "earthlink.net",
    "email.com",
    "fastmail.com",
    "fastmail.fm",
    "foxmail.com",
    "free.fr",
    "freenet.de",
    "gmail.com",
    "gmx.at",
    "gmx.ch",
    "gmx.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hanmail.net",
    "hey.com",
    "hotmail.co.uk",
    "hotmail.com",
    "hotmail.de",
    "hotmail.fr",
    "hotmail.it",
    "hushmail.com",
    "icloud.com",
    "inbox.ru",
    "laposte.net",
    "libero.it",
    "list.ru",
    "live.com",
    "mac.com",
    "mail.com",
    "mail.ru",
    "mailbox.org",
    "me.com",
    "msn.com",
    "naver.com",
    "orange.fr",
    "outlook.com",
    "outlook.de",
    "outlook.fr",
    "pm.me",
    "posteo.de",
    "proton.me",
    "protonmail.com",
    "qq.com",
    "rediffmail.com",
    "rocketmail.com",
    "sbcglobal.net",
    "seznam.cz",
    "sina.com",
    "t-online.de",
    "tuta.io",
    "tutanota.com",
    "uol.com.br",
    "verizon.net",
    "web.de",
    "wp.pl",
    "yahoo.co.jp",
    "yahoo.co.uk",
    "yahoo.com",
    "yahoo.de",
    "yahoo.fr",
    "yandex.com",
    "yandex.ru",
    "ymail.com",
    "zoho.com",
];

/// A domain name in its one written form: lower case, without final dot, international labels as `xn--`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomainName(String);

impl DomainName {
    /// Reads a domain as it may be looked up.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the field.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "must be a domain such as shop.example.com: labels of letters, digits and hyphens, without \
                             scheme, path and port; international ones in their xn-- form";
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > 253 {
            return Err("must be at most 253 characters long");
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !text.split('.').all(label) {
            return Err(WRONG);
        }
        // A name that ends in a number is an address, or is taken for one.
        match text.rsplit_once('.') {
            None => Err("must have at least two labels, as in example.com"),
            Some((_, last)) if last.bytes().all(|b| b.is_ascii_digit()) => Err("must not be an address"),
            Some(_) => Ok(Self(text.to_ascii_lowercase())),
        }
    }

    /// Reads a domain as a tenant may have it: what is a public mail provider's, and what has no room for its TXT record,
    /// is refused.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the field.
    pub fn choose(text: &str) -> Result<Self, &'static str> {
        let domain = Self::parse(text)?;
        if domain.is_mail_provider() {
            return Err("is a public mail provider's, or below it");
        }
        if domain.0.len() + CHALLENGE_LABEL.len() + 1 > 253 {
            return Err("is too long for the TXT record that would prove it");
        }
        Ok(domain)
    }

    /// Whether everybody may have an address there.
    fn is_mail_provider(&self) -> bool {
        let at_dots = self.0.match_indices('.').map(|(at, _)| &self.0[at + 1..]);
        std::iter::once(self.0.as_str()).chain(at_dots).any(|name| MAIL_PROVIDERS.binary_search(&name).is_ok())
    }

    /// The domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the TXT record that proves it.
    #[must_use]
    pub fn txt_name(&self) -> String {
        format!("{CHALLENGE_LABEL}.{}", self.0)
    }
}

/// What a TXT record must hold to prove a domain: 256 random bits that no other tenant has.
#[must_use]
pub fn new_token() -> String {
    format!("{TOKEN_PREFIX}{}", random_base62(43))
}

/// Where a domain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainStatus {
    /// Added, not proven.
    Pending,
    /// Proven: it is the tenant's.
    Verified,
    /// Was proven, and its record has been gone for too long.
    Lapsed,
}

impl DomainStatus {
    /// The status's name in audit rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Lapsed => "lapsed",
        }
    }
}

/// What a look into the DNS found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// The record that proves the domain.
    Shown,
    /// Another answer; what is wrong, for people.
    Missing(String),
    /// No answer, which says nothing about the domain; why, for people.
    Unknown(String),
}

impl Sight {
    /// What the texts of the TXT records at its name say about a domain.
    #[must_use]
    pub fn of(texts: &[String], domain: &DomainName, token: &str) -> Self {
        let wanted = |text: &String| text.trim() == token;
        if texts.iter().any(wanted) {
            return Self::Shown;
        }
        let name = domain.txt_name();
        Self::Missing(match texts.len() {
            0 => format!("there is no TXT record at {name}"),
            1 => format!("the TXT record at {name} holds another value"),
            count => format!("none of the {count} TXT records at {name} holds the value"),
        })
    }
}

/// A custom domain of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub domain: DomainName,
    /// Its id, by which it is looked at.
    pub domain_id: Uuid,
    /// What the TXT record must hold. No secret: it proves something only where it is published.
    pub token: String,
    /// Where it stands.
    pub status: DomainStatus,
    /// When it was last proven anew.
    pub verified_at: Option<Timestamp>,
    /// When it was last looked at and an answer came.
    pub checked_at: Option<Timestamp>,
    /// When it is looked at next; never by itself when none.
    pub next_check_at: Option<Timestamp>,
    /// Since when its record is gone.
    pub failing_since: Option<Timestamp>,
    /// What the last look found wrong; empty when nothing is.
    pub problem: String,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Domain {
    /// A domain that was added now.
    #[must_use]
    pub fn new(domain: DomainName, domain_id: Uuid, now: Timestamp) -> Self {
        Self {
            domain,
            domain_id,
            token: new_token(),
            status: DomainStatus::Pending,
            verified_at: None,
            checked_at: None,
            next_check_at: Some(now.after(SOON)),
            failing_since: None,
            problem: String::new(),
            created_at: now,
        }
    }

    /// Takes in what a look found. A name server that does not answer changes nothing but when to look again.
    pub fn seen(&mut self, sight: &Sight, now: Timestamp) {
        match sight {
            Sight::Shown => self.shown(now),
            Sight::Missing(problem) => self.missing(problem, now),
            Sight::Unknown(problem) => {
                self.problem.clone_from(problem);
                self.next_check_at = self.looked_at_by_itself(now).then(|| now.after(SOON));
            }
        }
    }

    fn shown(&mut self, now: Timestamp) {
        if self.status != DomainStatus::Verified {
            self.verified_at = Some(now);
        }
        self.status = DomainStatus::Verified;
        self.checked_at = Some(now);
        self.next_check_at = Some(now.after(EVERY));
        self.failing_since = None;
        self.problem.clear();
    }

    fn missing(&mut self, problem: &str, now: Timestamp) {
        problem.clone_into(&mut self.problem);
        self.checked_at = Some(now);
        if self.status == DomainStatus::Verified {
            let since = *self.failing_since.get_or_insert(now);
            if now.since(since) >= LAPSE_AFTER {
                self.status = DomainStatus::Lapsed;
            }
        }
        self.next_check_at = self.looked_at_by_itself(now).then(|| self.next_look(now));
    }

    /// In an hour; but not later than it lapses, so that it does so on time.
    fn next_look(&self, now: Timestamp) -> Timestamp {
        let lapses = self.failing_since.map(|since| since.after(LAPSE_AFTER)).filter(|at| *at > now);
        lapses.map_or(now.after(SOON), |at| at.min(now.after(SOON)))
    }

    const fn looked_at_by_itself(&self, now: Timestamp) -> bool {
        match self.status {
            DomainStatus::Verified => true,
            DomainStatus::Pending => now.since(self.created_at).num_seconds() < PENDING_FOR.num_seconds(),
            DomainStatus::Lapsed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn gone() -> Sight {
        Sight::Missing("there is no TXT record".to_owned())
    }

    fn verified() -> Domain {
        let mut domain = Domain::new(DomainName::choose("acme.org").unwrap(), Uuid::nil(), START);
        domain.seen(&Sight::Shown, START);
        domain
    }

    #[test]
    fn mail_providers_are_sorted_for_the_binary_search() {
        assert!(MAIL_PROVIDERS.is_sorted());
        assert!(MAIL_PROVIDERS.iter().all(|name| DomainName::parse(name).is_ok()));
    }

    #[test]
    fn a_domain_has_one_written_form() {
        for (text, wanted) in [
            ("acme.org", "acme.org"),
            ("Shop.ACME.org.", "shop.acme.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("a--b.example", "a--b.example"),
            ("1.example", "1.example"),
        ] {
            assert_eq!(DomainName::choose(text).unwrap().as_str(), wanted);
        }
        let long = format!("{}.org", "a.".repeat(125).trim_end_matches('.'));
        let bad = [
            "",
            ".",
            "..",
            "org",
            "localhost",
            "a..org",
            ".acme.org",
            "acme.org..",
            "-a.org",
            "a-.org",
            "a b.org",
            "https://acme.org",
            "acme.org/x",
            "acme.org:443",
            "bücher.example",
            "a_b.org",
            "*.acme.org",
            "127.0.0.1",
            "[::1]",
            "::1",
            "1.2.3",
            "user@acme.org",
            &format!("{}.org", "a".repeat(64)),
            &long,
        ];
        for text in bad {
            assert!(DomainName::choose(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_everybody_has_an_address_at_is_nobodys() {
        for text in ["gmail.com", "GMAIL.com.", "mail.gmail.com", "a.b.outlook.com", "yahoo.co.uk", "zoho.com"] {
            assert!(DomainName::choose(text).unwrap_err().contains("mail provider"), "{text}");
        }
        for text in ["notgmail.com", "gmail.com.example", "co.uk", "gmail.example"] {
            assert!(DomainName::choose(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn one_of_several_records_is_enough_and_must_be_the_whole_value() {
        let domain = DomainName::choose("acme.org").unwrap();
        let token = new_token();
        assert_eq!(token.len(), TOKEN_PREFIX.len() + 43);
        let of = |texts: &[&str]| Sight::of(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>(), &domain, &token);
        assert_eq!(of(&["v=spf1 -all", &token, "other"]), Sight::Shown);
        assert_eq!(of(&[&format!(" {token} ")]), Sight::Shown);
        let almost = [&token[..token.len() - 1], &format!("{token}x"), &token.to_lowercase(), &new_token()]
            .map(|text| matches!(of(&[text]), Sight::Missing(_)));
        assert_eq!(almost, [true; 4]);
        assert!(
            matches!(of(&[]), Sight::Missing(problem) if problem.contains("no TXT record at _tenantry-challenge.acme.org"))
        );
    }

    #[test]
    fn a_pending_domain_is_looked_at_every_hour_for_three_days() {
        let mut domain = Domain::new(DomainName::choose("acme.org").unwrap(), Uuid::nil(), START);
        let mut looks = 0;
        while let Some(at) = domain.next_check_at {
            domain.seen(&gone(), at);
            looks += 1;
        }
        assert_eq!((looks, domain.status, domain.failing_since), (72, DomainStatus::Pending, None));
        domain.seen(&Sight::Unknown("timed out".to_owned()), START.after(TimeDelta::days(9)));
        assert_eq!(domain.next_check_at, None);
        domain.seen(&Sight::Shown, START.after(TimeDelta::days(9)));
        assert_eq!((domain.status, domain.problem.as_str()), (DomainStatus::Verified, ""));
    }

    #[test]
    fn a_proven_domain_lapses_three_days_after_its_record_was_first_missed() {
        let mut domain = verified();
        assert_eq!(domain.next_check_at, Some(START.after(TimeDelta::days(1))));
        let first = START.after(TimeDelta::days(1));
        domain.seen(&gone(), first);
        assert_eq!(domain.next_check_at, Some(first.after(TimeDelta::hours(1))));
        domain.seen(&gone(), first.after(LAPSE_AFTER - TimeDelta::minutes(20)));
        assert_eq!(domain.status, DomainStatus::Verified);
        assert_eq!(domain.next_check_at, Some(first.after(LAPSE_AFTER)), "on time");
        domain.seen(&gone(), first.after(LAPSE_AFTER));
        assert_eq!((domain.status, domain.next_check_at), (DomainStatus::Lapsed, None));
        let back = first.after(TimeDelta::days(9));
        domain.seen(&Sight::Shown, back);
        assert_eq!(
            (domain.status, domain.verified_at, domain.failing_since),
            (DomainStatus::Verified, Some(back), None)
        );
    }

    #[test]
    fn a_record_that_comes_back_starts_the_three_days_anew() {
        let mut domain = verified();
        let two_days = TimeDelta::days(2);
        domain.seen(&gone(), START);
        domain.seen(&Sight::Shown, START.after(two_days));
        domain.seen(&gone(), START.after(two_days + two_days));
        domain.seen(&gone(), START.after(two_days + two_days + two_days));
        assert_eq!((domain.status, domain.verified_at), (DomainStatus::Verified, Some(START)));
    }

    #[test]
    fn a_name_server_that_does_not_answer_takes_nothing_away() {
        let mut domain = verified();
        for hour in 0..1000 {
            let now = START.after(TimeDelta::hours(hour));
            domain.seen(&Sight::Unknown("timed out".to_owned()), now);
            assert_eq!(domain.next_check_at, Some(now.after(TimeDelta::hours(1))));
        }
        assert_eq!(
            (domain.status, domain.failing_since, domain.checked_at),
            (DomainStatus::Verified, None, Some(START))
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail_and_what_it_takes_reads_back(text in any::<String>(), name in "[a-zA-Z0-9.-]{0,80}") {
            let _ = DomainName::parse(&text);
            if let Ok(domain) = DomainName::parse(&name) {
                prop_assert_eq!(DomainName::parse(domain.as_str()), Ok(domain));
            }
        }
    }
}
