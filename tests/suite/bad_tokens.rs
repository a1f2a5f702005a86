//! Credentials that somebody made: all of them get one answer, which tells nothing; only an access token of ours that is
//! over says so.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use prost::Message as _;
use serde_json::{Value, json};
use tenantry::domain::seal::MasterKey;
use tenantry::domain::secret::Secret;
use tenantry::rpc::v1;
use tenantry::time::Clock as _;
use tonic::Code;
use uuid::Uuid;

use crate::harness::{Bed, Person, assert_refused, on_both_engines};
use crate::raw::{self, Seen, headers};

on_both_engines! {
    whatever_is_wrong_with_a_credential_the_answer_is_the_same
    a_token_of_ours_that_is_over_says_so
    a_forwarded_token_must_be_good
    only_services_speak_for_others
    whatever_is_wrong_with_a_refresh_token_the_answer_is_the_same
    what_cannot_be_undone_needs_a_recent_sign_in
}

/// What the server signs with.
struct Signer {
    kid: String,
    private: Vec<u8>,
    public: Vec<u8>,
}

impl Signer {
    /// Opens the server's key, as nobody without its files can.
    async fn of(t: &Bed) -> Self {
        // The statement wants a UUID, and this one is nobody's.
        let sql = "select kid, sealed, public_key from signing_key where state = 'current' and $1 is not null";
        let mut keys: Vec<(String, Vec<u8>, Vec<u8>)> = t.rows(sql, &Uuid::nil().to_string()).await;
        let (kid, sealed, public) = keys.pop().expect("a key");
        let hex = std::fs::read_to_string(t.dir.path().join("master.key")).expect("the master key");
        let mut master = [0; 32];
        for (i, byte) in master.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal");
        }
        let master = MasterKey::new(&Secret::new(master));
        let private = master.open(&[b"signing key"], kid.as_bytes(), &sealed).expect("opens");
        Self { kid, private, public }
    }

    fn header(&self) -> Header {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(self.kid.clone());
        header
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_ed_der(&self.private)).expect("signs")
    }
}

/// What a token of somebody says.
fn claims(person: &Person) -> Value {
    let payload = person.token.split('.').nth(1).expect("a payload");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("claims")
}

fn with(claims: &Value, name: &str, value: &Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value.clone();
    claims
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

async fn who_am_i(t: &Bed, pairs: &[(&'static str, &str)]) -> Result<tonic::Response<Vec<u8>>, tonic::Status> {
    raw::call(&t.channel(), "/tenantry.v1.AuthService/WhoAmI", &headers(pairs), b"").await
}

/// A token of somebody who signed in so long ago, signed as the server signs.
pub(crate) async fn signed_in_minutes_ago(t: &Bed, person: &Person, minutes: i64) -> String {
    let signer = Signer::of(t).await;
    let auth_time = t.clock.now().seconds() - 60 * minutes;
    signer.sign(&signer.header(), &with(&claims(person), "auth_time", &json!(auth_time)))
}

/// Signed as the server signs, since no token lives for as long as a sign-in is recent.
async fn what_cannot_be_undone_needs_a_recent_sign_in(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "admin").await;
    let signed_in = async |minutes: i64| t.with_token(&signed_in_minutes_ago(t, &acme.owner, minutes).await);
    let transfer = v1::TransferOwnershipRequest { new_owner_id: bob.id.clone(), ..Default::default() };
    let (mut stale, mut recent) = (signed_in(11).await, signed_in(9).await);
    let refused = stale.members.transfer_ownership(transfer.clone()).await;
    assert_refused(refused, Code::PermissionDenied, "RECENT_LOGIN_REQUIRED");
    let refused = stale.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await;
    assert_refused(refused, Code::PermissionDenied, "RECENT_LOGIN_REQUIRED");
    let stays = v1::TransferOwnershipRequest { own_roles: vec!["owner".to_owned()], ..transfer };
    recent.members.transfer_ownership(stays).await.expect("a sign-in of nine minutes ago is recent");
    recent.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await.expect("here too");
}

/// A key with the checksum that belongs to the rest of it.
fn summed(key: &str) -> String {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let (body, _) = key.rsplit_once('_').expect("a key");
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut sum = ['0'; 6];
    for slot in sum.iter_mut().rev() {
        *slot = char::from(BASE62[rest % 62]);
        rest /= 62;
    }
    format!("{body}_{}", String::from_iter(sum))
}

/// Tokens that are almost right, each by what is wrong with it.
async fn forgeries(t: &Bed, person: &Person) -> Vec<(&'static str, String)> {
    let signer = Signer::of(t).await;
    let good = claims(person);
    let now = t.clock.now().seconds();
    let header = signer.header();
    assert!(
        who_am_i(t, &[("authorization", &format!("Bearer {}", signer.sign(&header, &good)))]).await.is_ok(),
        "the test does not sign as the server does"
    );

    let foreign = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).expect("a key");
    let foreign = Signer { private: foreign.as_ref().to_vec(), ..Signer::of(t).await };
    let mut hmac = header.clone();
    hmac.alg = Algorithm::HS256;
    let hmac = encode(&hmac, &good, &EncodingKey::from_secret(&signer.public)).expect("signs");
    let of_header = |change: fn(&mut Header)| {
        let mut changed = header.clone();
        change(&mut changed);
        signer.sign(&changed, &good)
    };
    let of_claims = |name: &str, value: Value| signer.sign(&header, &with(&good, name, &value));
    let none = |alg: &str| json!({"alg": alg, "typ": "at+jwt", "kid": signer.kid});
    let (head, rest) = person.token.split_once('.').expect("a token");
    let (payload, signature) = rest.split_once('.').expect("a token");
    let other = uuid::Uuid::nil().to_string();
    vec![
        ("alg none", format!("{}.{payload}.", part(&none("none")))),
        ("alg None, the signature kept", format!("{}.{payload}.{signature}", part(&none("None")))),
        ("alg of another family in the head", format!("{}.{payload}.{signature}", part(&none("ES256")))),
        ("HS256 under the public key", hmac),
        ("another key", foreign.sign(&header, &good)),
        ("another audience", of_claims("aud", json!("another"))),
        ("no audience", of_claims("aud", Value::Null)),
        ("two audiences", of_claims("aud", json!(["another", "third"]))),
        ("another issuer", of_claims("iss", json!("another"))),
        ("no issuer", of_claims("iss", Value::Null)),
        ("another type", of_header(|h| h.typ = Some("JWT".to_owned()))),
        ("no type", of_header(|h| h.typ = None)),
        ("no kid", of_header(|h| h.kid = None)),
        ("an empty kid", of_header(|h| h.kid = Some(String::new()))),
        ("a kid that is a path", of_header(|h| h.kid = Some("../../x".to_owned()))),
        ("a kid that nobody has", of_header(|h| h.kid = Some("0123456789abcdef".to_owned()))),
        ("a kid in upper case", of_header(|h| h.kid = h.kid.as_ref().map(|kid| kid.to_uppercase()))),
        ("a kid that is SQL", of_header(|h| h.kid = Some("' or 1=1 --".to_owned()))),
        ("not good yet", of_claims("nbf", json!(now + 3600))),
        ("issued in the future", of_claims("iat", json!(now + 3600))),
        ("expiry of no number", of_claims("exp", json!("tomorrow"))),
        ("nobody's", of_claims("sub", json!(other))),
        ("nobody's session", of_claims("sid", json!(other))),
        ("a tenant of no form", of_claims("tid", json!("../x"))),
        ("cut short", person.token[..person.token.len() - 4].to_owned()),
        ("without signature", format!("{head}.{payload}.")),
        ("of two parts", format!("{head}.{payload}")),
        ("another payload", format!("{head}.{}.{signature}", part(&with(&good, "auth_time", &json!(1))))),
        ("a dot after it", format!("{}.", person.token)),
        ("a dot before it", format!(".{}", person.token)),
        ("padded", format!("{}=", person.token)),
        ("the beginning of one", "eyJ".to_owned()),
        ("too long", format!("eyJ{}", "A".repeat(8_000))),
    ]
}

async fn whatever_is_wrong_with_a_credential_the_answer_is_the_same(t: &Bed) {
    let tenant = t.tenant("forged").await;
    let key = t.service_key(&["*"]).await;
    let mut forged = forgeries(t, &tenant.owner).await;
    assert_eq!(summed(&key), key, "the test does not sum as the server does");
    let mut digits = key.clone().into_bytes();
    digits[20] = if digits[20] == b'a' { b'b' } else { b'a' };
    let digits = String::from_utf8(digits).expect("text");
    forged.extend([
        ("a key with another secret and the right checksum", summed(&digits)),
        ("a key as another kind with the right checksum", summed(&key.replacen("tns_", "tno_", 1))),
        ("a key with another digit", digits),
        ("a key as another kind", key.replacen("tns_", "tno_", 1)),
        ("a key of no kind", key.replacen("tns_", "tnx_", 1)),
        ("a key cut short", key[..30].to_owned()),
        ("a key twice", format!("{key}{key}")),
        ("a device token", format!("tnd_{}", "a".repeat(43))),
        ("a refresh token", tenant.owner.refresh.clone()),
        ("a word", "password".to_owned()),
    ]);
    let wanted = Seen::from(who_am_i(t, &[("x-api-key", "nonsense")]).await);
    let told = raw::told(&who_am_i(t, &[("x-api-key", "nonsense")]).await);
    assert_eq!(told, (Code::Unauthenticated, "CREDENTIAL_INVALID".to_owned()));
    for (what, credential) in forged {
        let bearer = format!("Bearer {credential}");
        assert_eq!(Seen::from(who_am_i(t, &[("authorization", &bearer)]).await), wanted, "{what}");
        assert_eq!(Seen::from(who_am_i(t, &[("x-api-key", &credential)]).await), wanted, "{what}, as x-api-key");
    }
}

async fn a_token_of_ours_that_is_over_says_so(t: &Bed) {
    let tenant = t.tenant("over").await;
    let signer = Signer::of(t).await;
    let good = claims(&tenant.owner);
    let now = t.clock.now().seconds();
    for exp in [now, now - 1, now - 86_400, 0] {
        let token = signer.sign(&signer.header(), &with(&good, "exp", &json!(exp)));
        let answer = who_am_i(t, &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(raw::told(&answer), (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()), "{exp}");
    }
    // Not ours, so that it is over is nobody's business.
    let foreign = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).expect("a key");
    let foreign = Signer { private: foreign.as_ref().to_vec(), ..signer };
    let token = foreign.sign(&foreign.header(), &with(&good, "exp", &json!(0)));
    let answer = who_am_i(t, &[("authorization", &format!("Bearer {token}"))]).await;
    assert_eq!(raw::told(&answer), (Code::Unauthenticated, "CREDENTIAL_INVALID".to_owned()));
}

async fn a_forwarded_token_must_be_good(t: &Bed) {
    let tenant = t.tenant("forged").await;
    let key = t.service_key(&["*"]).await;
    let mut bad = forgeries(t, &tenant.owner).await;
    bad.push(("a key", key.clone()));
    let wanted = Seen::from(who_am_i(t, &[("x-api-key", "nonsense")]).await);
    for (what, token) in bad {
        let answer = who_am_i(t, &[("x-api-key", &key), ("x-on-behalf-of", &token)]).await;
        assert_eq!(Seen::from(answer), wanted, "{what}");
    }
}

async fn only_services_speak_for_others(t: &Bed) {
    let tenant = t.tenant("speaks").await;
    let other = t.person("other").await;
    let bearer = format!("Bearer {}", tenant.owner.token);
    for credential in [("authorization", bearer.as_str()), ("x-api-key", &t.operator_key)] {
        for token in [other.token.as_str(), &tenant.owner.token, "nonsense", ""] {
            let answer = who_am_i(t, &[credential, ("x-on-behalf-of", token)]).await;
            assert_eq!(raw::told(&answer), (Code::InvalidArgument, "METADATA_MALFORMED".to_owned()), "{token:?}");
        }
    }
    let answer = who_am_i(t, &[("x-on-behalf-of", &other.token)]).await;
    assert_eq!(raw::told(&answer), (Code::Unauthenticated, "CREDENTIAL_MISSING".to_owned()));
}

async fn whatever_is_wrong_with_a_refresh_token_the_answer_is_the_same(t: &Bed) {
    let (tenant, key) = (t.tenant("forged").await, t.service_key(&["*"]).await);
    let good = &tenant.owner.refresh;
    let ask = async |token: &str| {
        let body = v1::RefreshTokenRequest { refresh_token: token.to_owned() }.encode_to_vec();
        raw::call(&t.channel(), "/tenantry.v1.AuthService/RefreshToken", &headers(&[]), &body).await
    };
    let wanted = Seen::from(ask("nonsense").await);
    let over = t.person("over").await;
    t.revoke_sessions(&over).await;
    let mut bad = vec![
        String::new(),
        "tnr_".to_owned(),
        format!("tnr_{}", "0".repeat(113)),
        format!("tnr_{}", "z".repeat(113)),
        format!("tnr_{}", "A".repeat(100_000)),
        format!("{good} "),
        format!("{good}{good}"),
        good[4..].to_owned(),
        good.replacen("tnr_", "TNR_", 1),
        good.replacen("tnr_", "tnd_", 1),
        tenant.owner.token.clone(),
        key,
        t.operator_key.clone(),
        over.refresh,
    ];
    for at in [4, 20, 60, 100, good.len() - 1] {
        let other = if good.as_bytes()[at] == b'a' { "b" } else { "a" };
        bad.push(format!("{}{other}{}", &good[..at], &good[at + 1..]));
        bad.push(good[..at].to_owned());
    }
    for token in bad {
        assert_eq!(Seen::from(ask(&token).await), wanted, "{token:.130}");
    }
    // None of it has ended anything.
    assert!(ask(good).await.is_ok());
}
