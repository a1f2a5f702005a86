//! Access tokens under bad and damaged input, before and behind a good signature.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::*;
use crate::domain::fuzz::{fuzz, master, texts};

const KID: &str = "0123456789abcdef";
const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// Tokens are taken that this key signed.
fn tokens(pair: &Ed25519KeyPair) -> Tokens {
    let audiences = Audiences { own: "tenantry".to_owned(), others: Vec::new(), of_tenant: String::new() };
    let tokens = Tokens::new(Arc::new(master()), "https://example.com".to_owned(), audiences);
    let key = SigningKey {
        kid: KID.to_owned(),
        state: KeyState::Next,
        public_key: pair.public_key().as_ref().to_vec(),
        sealed: Vec::new(),
        created_at: NOW,
        current_at: None,
        retired_at: None,
        over_at: None,
        revoked_at: None,
    };
    tokens.follow(&[key]).ok();
    tokens
}

fn header() -> Value {
    json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": KID })
}

fn claims() -> Value {
    let id = Uuid::from_u128(1);
    json!({
        "iss": "https://example.com", "aud": ["tenantry", "x"], "sub": id, "sid": id, "tid": id,
        "iat": NOW.seconds(), "exp": NOW.seconds() + 300, "auth_time": NOW.seconds(), "aal": 1,
    })
}

fn signed(pair: &Ed25519KeyPair, header: &Value, claims: &Value) -> String {
    let body = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(body.as_bytes()));
    format!("{body}.{signature}")
}

/// A value that may stand where another was expected.
fn value() -> impl Strategy<Value = Value> {
    let words =
        || select(&["", "tenantry", "https://example.com", "at+jwt", "none", "HS256", "EdDSA", "../../x", KID][..]);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-400_i64..400).prop_map(|by| Value::from(NOW.seconds() + by)),
        words().prop_map(Value::from),
        vec(words(), 0..4).prop_map(Value::from),
        Just(json!({ "sub": Uuid::nil() })),
        any::<String>().prop_map(Value::from),
    ]
}

#[test]
fn a_fuzzed_access_token_is_taken_only_as_it_was_signed() {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let tokens = tokens(&pair);
    let own = [signed(&pair, &header(), &claims())];
    fuzz("access token", texts(&own), |text| {
        let taken = tokens.verify(&text, NOW).is_ok();
        prop_assert_eq!(taken, own.contains(&text));
        Ok(taken)
    });
}

/// Behind a good signature: whatever header and claims say, what is taken is ours, for us, and in its time.
#[test]
fn a_fuzzed_claim_of_an_access_token_is_compared() {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let tokens = tokens(&pair);
    let names = [
        "typ",
        "alg",
        "kid",
        "iss",
        "aud",
        "sub",
        "sid",
        "tid",
        "iat",
        "exp",
        "nbf",
        "auth_time",
        "aal",
        "act",
        "crit",
    ];
    let changes = vec((any::<Index>(), prop::option::weighted(0.8, value())), 0..4);
    fuzz("claims of an access token", changes, |changes| {
        let (mut header, mut claims) = (header(), claims());
        for (at, value) in changes {
            let name = names[at.index(names.len())];
            let part = if matches!(name, "typ" | "alg" | "kid" | "crit") { &mut header } else { &mut claims };
            let part = part.as_object_mut().expect("an object");
            match value {
                Some(value) => part.insert(name.to_owned(), value),
                None => part.remove(name),
            };
        }
        let Ok(taken) = tokens.verify(&signed(&pair, &header, &claims), NOW) else { return Ok(false) };
        prop_assert_eq!(
            (&header["typ"], &header["alg"], &header["kid"]),
            (&json!("at+jwt"), &json!("EdDSA"), &json!(KID))
        );
        prop_assert_eq!(&claims["iss"], "https://example.com");
        let aud = &claims["aud"];
        let ours = json!("tenantry");
        prop_assert!(*aud == ours || aud.as_array().is_some_and(|all| all.contains(&ours)), "{claims}");
        prop_assert!(claims["exp"].as_i64() > Some(NOW.seconds()) && taken.expires_at > NOW, "{claims}");
        for begins in ["iat", "nbf"] {
            prop_assert!(claims[begins].as_i64() <= Some(NOW.seconds() + 60), "{claims}");
        }
        prop_assert_eq!(&claims["sub"], &json!(taken.user_id.0));
        prop_assert_eq!(&claims["sid"], &json!(taken.session_id.0));
        prop_assert_eq!(claims["tid"].as_str().map(str::to_owned), taken.tenant.map(|tenant| tenant.to_string()));
        Ok(true)
    });
}
