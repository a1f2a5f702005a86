//! Texts to try readers of tokens, keys, codes and names with: what is good, what was good and is damaged, what is good
//! elsewhere, and what never was anything. Each reader is tried for as long as `TENANTRY_FUZZ_SECONDS` says, a second by
//! itself.

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use uuid::Uuid;

use super::id::{SessionId, UserId};
use super::invitation::InvitationToken;
use super::mfa::{Challenge, recovery_codes};
use super::refresh_token::RefreshToken;
use super::seal::MasterKey;
use super::secret::{Key, KeyKind, Secret, binding_token, device_token, random_base62};

/// Tries a reader: `reads` says whether it took the input, and fails where it took what it should not have. An input that
/// breaks it is made smaller before it is shown.
pub(crate) fn fuzz<S: Strategy>(reader: &str, inputs: S, reads: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    let seconds = std::env::var("TENANTRY_FUZZ_SECONDS").map_or(1, |seconds| seconds.parse().expect("seconds"));
    let begun = Instant::now();
    let (all, taken) = (Cell::new(0_u64), Cell::new(0_u64));
    while begun.elapsed() < Duration::from_secs(seconds) {
        let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
        let tries = TestRunner::new(config).run(&inputs, |input| {
            all.set(all.get() + 1);
            taken.set(taken.get() + u64::from(reads(input)?));
            Ok(())
        });
        tries.unwrap_or_else(|broken| panic!("{reader}: {broken}"));
    }
    println!("fuzz: {reader}: {} inputs in {seconds} s, {} of them taken", all.get(), taken.get());
    assert!(taken.get() > 0 && taken.get() < all.get(), "{reader}: all inputs fare alike");
}

/// The key that the samples are made under.
pub(crate) fn master() -> MasterKey {
    MasterKey::new(&Secret::new([7; 32]))
}

/// One good text of each kind, so that every reader is given those of all others; what needs a key has another.
fn of_all_kinds() -> Vec<String> {
    let elsewhere = MasterKey::new(&Secret::new([8; 32]));
    let (user, session) = (UserId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)));
    let keys = [KeyKind::Tenant, KeyKind::Personal, KeyKind::Service, KeyKind::Operator].map(|k| Key::generate(k).text);
    let others = [
        RefreshToken::generate(&elsewhere, user, session, 3).text,
        Challenge::generate(&elsewhere, user).text,
        InvitationToken::generate().into_text(),
        binding_token(),
        device_token(),
        recovery_codes().swap_remove(0),
    ];
    let plain = ["acme", "287082", "ann@example.com", "acme.example.com", "0192d3a4-5b6c-7d8e-9f00-112233445566"];
    let header = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6IjAxMjM0NTY3ODlhYmNkZWYifQ";
    let made = [format!("{header}.e30.AAAA"), format!("tnl_{}", random_base62(43))];
    let secrets = keys.iter().chain(&others).map(|secret| secret.expose().clone());
    secrets.chain(plain.map(str::to_owned)).chain(made).collect()
}

/// What happens to a text on its way.
#[derive(Debug, Clone)]
enum Damage {
    Byte(Index, u8),
    Letter(Index, char),
    Cut(Index, Index),
    Twice(Index, Index),
    Put(Index, Vec<u8>),
    Case(Index),
    Graft(Index, Index, String),
}

impl Damage {
    fn apply(self, text: &mut Vec<u8>) {
        let range = |text: &[u8], a: Index, b: Index| {
            let (a, b) = (a.index(text.len() + 1), b.index(text.len() + 1));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Byte(at, with) if !text.is_empty() => *at.get_mut(text) = with,
            Self::Letter(at, with) if !text.is_empty() => {
                let at = at.index(text.len());
                text.splice(at..=at, with.to_string().bytes());
            }
            Self::Case(at) if !text.is_empty() => *at.get_mut(text) ^= 0x20,
            Self::Byte(..) | Self::Letter(..) | Self::Case(..) => {}
            Self::Cut(a, b) => drop(text.drain(range(text, a, b))),
            Self::Twice(a, b) => {
                let range = range(text, a, b);
                let again = text[range.clone()].to_vec();
                text.splice(range.end..range.end, again);
            }
            Self::Put(at, what) => {
                let at = at.index(text.len() + 1);
                text.splice(at..at, what);
            }
            Self::Graft(at, from, other) => {
                text.truncate(at.index(text.len() + 1));
                text.extend(&other.as_bytes()[from.index(other.len() + 1)..]);
            }
        }
    }
}

fn damage(all: Vec<String>) -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, with)| Damage::Byte(at, with)),
        (at(), select("0aAzZ9_-. =+/é\0\n".chars().collect::<Vec<_>>())).prop_map(|(at, c)| Damage::Letter(at, c)),
        (at(), at()).prop_map(|(a, b)| Damage::Cut(a, b)),
        (at(), at()).prop_map(|(a, b)| Damage::Twice(a, b)),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, what)| Damage::Put(at, what)),
        at().prop_map(Damage::Case),
        (at(), at(), select(all)).prop_map(|(at, from, other)| Damage::Graft(at, from, other)),
    ]
}

/// Texts for a reader of `own` ones: those, one of each other kind, either of them damaged up to three times, and texts out
/// of the blue.
pub(crate) fn texts(own: &[String]) -> impl Strategy<Value = String> + use<> {
    let all = [own.to_vec(), of_all_kinds()].concat();
    let happens = prop::collection::vec(damage(all.clone()), 0..4);
    let damaged = (prop_oneof![3 => select(own.to_vec()), 1 => select(all)], happens).prop_map(|(text, happens)| {
        let mut bytes = text.into_bytes();
        for damage in happens {
            damage.apply(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    prop_oneof![6 => damaged, 1 => any::<String>(), 1 => "[a-zA-Z0-9_.-]{0,120}"]
}
