//! Settings: defaults of the catalogue, what a tenant sets itself, masks, races, and whatever else is sent.

use futures::future::join_all;
use prost_types::value::Kind;
use prost_types::{Duration, FieldMask, ListValue, Struct, Value};
use serde_json::json;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Engine, assert_refused, on_both_engines, refusal, request_id, unique, wrong_fields};

on_both_engines! {
    a_mask_names_what_changes
    without_a_mask_the_given_leaves_change
    one_etag_is_good_for_one_change_of_settings
    everything_that_is_wrong_is_named_at_once
    odd_input_is_refused_and_changes_nothing
    paths_that_there_are_not_are_refused
    settings_are_for_those_who_may
    nobody_lets_others_join_above_their_own_rank
    the_audit_row_says_which_settings_changed
    a_repeated_change_is_made_once
}

mod defaults {
    use super::{Engine, defaults_come_from_the_catalogue};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_sqlite() {
        defaults_come_from_the_catalogue(Engine::Sqlite).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_postgres() {
        defaults_come_from_the_catalogue(Engine::Postgres).await;
    }
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() }
}

fn update(settings: v1::Settings, paths: &[&str]) -> v1::UpdateSettingsRequest {
    v1::UpdateSettingsRequest { settings: Some(settings), update_mask: Some(mask(paths)), ..Default::default() }
}

fn branding(logo_url: &str, css: &str) -> v1::Settings {
    let branding = v1::Branding { logo_url: logo_url.to_owned(), css: css.to_owned(), ..Default::default() };
    v1::Settings { branding: Some(branding), ..Default::default() }
}

fn number(number: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(number)) }
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn custom(fields: Vec<(&str, Value)>) -> v1::Settings {
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    v1::Settings { custom: Some(Struct { fields }), ..Default::default() }
}

/// Objects in objects, so many deep.
fn nested(depth: usize) -> v1::Settings {
    let inner = (1..depth).fold(Struct::default(), |inner, _| Struct {
        fields: [("a".to_owned(), Value { kind: Some(Kind::StructValue(inner)) })].into(),
    });
    v1::Settings { custom: Some(inner), ..Default::default() }
}

async fn defaults_come_from_the_catalogue(engine: Engine) {
    let catalogue = r##"
default_plan = "free"
[plans.free.limits]
[settings]
locale = "de-DE"
time_zone = "Europe/Berlin"
[settings.branding]
primary_color = "#112233"
theme = "sober"
[settings.security]
session_length_seconds = 3600
sign_in_methods = ["password"]
[settings.compliance]
gdpr = true
[settings.custom]
greeting = "Moin"
rows = 20
"##;
    let t = Bed::of_product(engine, catalogue).await;
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let got = owner.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    assert_eq!((got.own_fields.unwrap().paths, got.etag.as_str()), (vec![], "\"v0\""));
    let holds = got.settings.unwrap();
    assert_eq!((holds.locale.as_str(), holds.currency.as_str()), ("de-DE", ""));
    assert_eq!(holds.contact, None);
    let security = holds.security.clone().unwrap();
    assert_eq!(security.session_length, Some(Duration { seconds: 3600, nanos: 0 }));
    assert_eq!(security.sign_in_methods, ["password"]);
    assert_eq!(holds.compliance.unwrap().gdpr, Some(true));
    assert_eq!(holds.custom.unwrap().fields["rows"], number(20.0));

    // A tenant's own value is over it, leaf by leaf and key by key.
    let security =
        v1::SecurityPolicy { session_length: Some(Duration { seconds: 900, nanos: 0 }), ..Default::default() };
    let own = v1::Settings { security: Some(security), ..custom(vec![("rows", number(50.0))]) };
    let changed =
        owner.update_settings(update(own, &["security.session_length", "custom"])).await.unwrap().into_inner();
    assert_eq!(changed.own_fields.unwrap().paths, ["custom", "security.session_length"]);
    let holds = changed.settings.unwrap();
    assert_eq!(
        holds.custom.unwrap().fields,
        [("greeting".to_owned(), text("Moin")), ("rows".to_owned(), number(50.0))].into()
    );
    let security = holds.security.unwrap();
    assert_eq!((security.session_length.unwrap().seconds, security.sign_in_methods.len()), (900, 1));

    // Named and empty: the default again.
    let back = update(v1::Settings::default(), &["security", "custom"]);
    let back = owner.update_settings(back).await.unwrap().into_inner();
    assert_eq!((back.own_fields.unwrap().paths, back.etag.as_str()), (vec![], "\"v2\""));
    assert_eq!(back.settings.unwrap().security.unwrap().session_length.unwrap().seconds, 3600);
    t.stop().await;
}

async fn a_mask_names_what_changes(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let mut all = v1::Settings { locale: "en-US".to_owned(), ..branding("https://example.com/l.svg", "a {}") };
    owner.update_settings(update(all.clone(), &["*"])).await.unwrap();
    // Only the leaf that is named; what else is given is not even looked at.
    let css = v1::Settings { locale: "no locale at all".to_owned(), ..branding("", "b {}") };
    let after = owner.update_settings(update(css, &["branding.css"])).await.unwrap().into_inner();
    all.branding = branding("https://example.com/l.svg", "b {}").branding;
    assert_eq!(after.settings.unwrap(), all);
    assert_eq!(after.own_fields.unwrap().paths, ["branding.css", "branding.logo_url", "locale"]);
    // A message as a whole.
    let after = owner.update_settings(update(branding("", "c {}"), &["branding"])).await.unwrap().into_inner();
    assert_eq!(after.own_fields.unwrap().paths, ["branding.css", "locale"]);
    let after = owner.update_settings(update(v1::Settings::default(), &["*"])).await.unwrap().into_inner();
    assert_eq!(after.settings.unwrap(), v1::Settings::default());
    let got = owner.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    assert_eq!((got.settings.unwrap(), got.etag.as_str()), (v1::Settings::default(), "\"v4\""));
}

async fn without_a_mask_the_given_leaves_change(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    owner.update_settings(update(branding("https://example.com/l.svg", "a {}"), &[])).await.unwrap();
    let mut plain = update(branding("", "b {}"), &[]);
    plain.update_mask = None;
    let after = owner.update_settings(plain).await.unwrap().into_inner().settings.unwrap();
    assert_eq!(after, branding("https://example.com/l.svg", "b {}"), "the logo stays");
    let nothing = owner.update_settings(update(v1::Settings::default(), &[])).await;
    assert_eq!(wrong_fields(nothing), ["update_mask"]);
}

async fn one_etag_is_good_for_one_change_of_settings(t: &Bed) {
    let acme = t.tenant("acme").await;
    for etag in ["\"v0\"", "\"v1\""] {
        let calls = (0..6).map(|i| {
            let mut owner = t.with_token(&acme.owner.token).tenants;
            let settings = v1::Settings {
                locale: format!("en-{}", ["US", "GB", "CA", "AU", "IE", "NZ"][i]),
                ..Default::default()
            };
            let request = v1::UpdateSettingsRequest { etag: etag.to_owned(), ..update(settings, &["locale"]) };
            async move { owner.update_settings(request).await }
        });
        let (won, lost): (Vec<_>, Vec<_>) = join_all(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 5));
        for answer in lost {
            assert_refused(answer, Code::Aborted, "ETAG_MISMATCH");
        }
    }
}

async fn everything_that_is_wrong_is_named_at_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let settings = v1::Settings {
        locale: "no locale".to_owned(),
        currency: "eur".to_owned(),
        contact: Some(v1::Contact { email: "ann".to_owned(), website: "ftp://a.b".to_owned(), ..Default::default() }),
        security: Some(v1::SecurityPolicy {
            session_length: Some(Duration { seconds: 1, nanos: 0 }),
            max_sign_in_attempts: Some(2),
            sign_in_methods: vec!["oidc".to_owned(), "sms".to_owned()],
            ..Default::default()
        }),
        compliance: Some(v1::Compliance { retention_days: Some(-1), ..Default::default() }),
        auto_join: Some(v1::AutoJoin { enabled: Some(true), role: "owner".to_owned() }),
        ..custom(vec![("x", number(f64::NAN))])
    };
    let request = v1::UpdateSettingsRequest { request_id: "x".to_owned(), ..update(settings.clone(), &[]) };
    let mut fields = wrong_fields(owner.update_settings(request).await);
    fields.sort();
    let expected = [
        "request_id",
        "settings.auto_join.role",
        "settings.compliance.retention_days",
        "settings.contact.email",
        "settings.contact.website",
        "settings.currency",
        "settings.custom",
        "settings.locale",
        "settings.security.max_sign_in_attempts",
        "settings.security.session_length",
        "settings.security.sign_in_methods[1]",
    ];
    assert_eq!(fields, expected);
    let role = |role: &str| v1::Settings {
        auto_join: Some(v1::AutoJoin { enabled: Some(true), role: role.to_owned() }),
        ..Default::default()
    };
    for name in ["owner", "nobody", ""] {
        let wrong = wrong_fields(owner.update_settings(update(role(name), &["auto_join"])).await);
        assert_eq!(wrong, ["settings.auto_join.role"], "{name}");
    }
    owner.update_settings(update(role("member"), &["auto_join"])).await.unwrap();
}

async fn odd_input_is_refused_and_changes_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let mib = "x".repeat(1024 * 1024);
    let contact = |name: &str| v1::Settings {
        contact: Some(v1::Contact { name: name.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![number(f64::INFINITY)] })) };
    let half = v1::SecurityPolicy { session_length: Some(Duration { seconds: 600, nanos: 1 }), ..Default::default() };
    let odd = [
        branding("", &"x".repeat(32 * 1024 + 1)),
        branding("", "@\\69mport 'x'"),
        branding("https://u:p@example.com", ""),
        branding("", "a\u{0}b"),
        contact("a\u{0}b"),
        contact(&"x".repeat(600_000)),
        nested(33),
        custom(vec![("x", number(f64::NAN))]),
        custom(vec![("x", list)]),
        custom(vec![("x", text(&"y".repeat(16 * 1024)))]),
        v1::Settings { time_zone: "../../etc/passwd\u{0}".to_owned(), ..Default::default() },
        v1::Settings { security: Some(half), ..Default::default() },
    ];
    for (i, settings) in odd.into_iter().enumerate() {
        let answer = owner.update_settings(update(settings, &["*"])).await;
        assert_eq!(wrong_fields(answer).len(), 1, "{i}");
    }
    // Beyond what is read at all: refused, or the connection is, but nothing breaks.
    for settings in [nested(100), nested(1000), contact(&mib), custom(vec![("x", text(&mib))])] {
        let answer: Result<Response<v1::UpdateSettingsResponse>, Status> =
            owner.update_settings(update(settings, &["*"])).await;
        let code = answer.expect_err("a refusal").code();
        assert_eq!(code, Code::InvalidArgument);
    }
    let got = owner.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    assert_eq!((got.settings.unwrap(), got.etag.as_str()), (v1::Settings::default(), "\"v0\""));
    // What is just within the bounds is taken; JSON may hold what text fields may not.
    let deep = nested(32);
    let after = owner.update_settings(update(deep.clone(), &["custom"])).await.unwrap().into_inner();
    assert_eq!(after.settings.unwrap(), deep);
    let zero =
        custom(vec![("a\u{0}", text("b\u{0}")), ("", number(1.5)), ("n", Value { kind: Some(Kind::NullValue(0)) })]);
    let after = owner.update_settings(update(zero.clone(), &["custom"])).await.unwrap().into_inner();
    assert_eq!(after.settings.unwrap(), zero);
}

async fn paths_that_there_are_not_are_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let long = "x".repeat(100_000);
    let paths =
        ["", "nope", "branding.", "custom.a", "security.session_length_seconds", "a\u{0}", "settings.locale", &long];
    for path in paths {
        let answer = owner.update_settings(update(branding("", "a {}"), &["branding.css", path])).await;
        assert_eq!(wrong_fields(answer), ["update_mask"]);
    }
    let many = vec!["locale"; 101];
    assert_eq!(wrong_fields(owner.update_settings(update(branding("", "a {}"), &many)).await), ["update_mask"]);
    // With a path that is unknown, everything that is given is looked at.
    let wrong = wrong_fields(owner.update_settings(update(branding("", "@import"), &["nope"])).await);
    assert_eq!(wrong, ["update_mask", "settings.branding.css"]);
}

async fn settings_are_for_those_who_may(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let locale = || update(v1::Settings { locale: "en".to_owned(), ..Default::default() }, &["locale"]);
    for (role, reads, writes) in
        [("viewer", false, false), ("member", false, false), ("manager", true, false), ("admin", true, true)]
    {
        let person = t.member(&acme, role).await;
        let mut clients = t.with_token(&person.token).tenants;
        let read = clients.get_settings(v1::GetSettingsRequest::default()).await;
        let written = clients.update_settings(locale()).await;
        for (answer, may) in [(read.err(), reads), (written.err(), writes)] {
            let reason = answer.map(|status| refusal::<()>(Err(status)).1);
            assert_eq!(reason.as_deref(), (!may).then_some("PERMISSION_MISSING"), "{role}");
        }
    }
    let mut stranger = t.with_token(&other.owner.token).tenants;
    let read = v1::GetSettingsRequest { tenant: acme.id.clone() };
    assert_refused(stranger.get_settings(read).await, Code::InvalidArgument, "TENANT_CONFLICT");
    let write = v1::UpdateSettingsRequest { tenant: acme.id.clone(), ..locale() };
    assert_refused(stranger.update_settings(write).await, Code::InvalidArgument, "TENANT_CONFLICT");
    let got = stranger.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    assert_eq!(got.settings.unwrap(), v1::Settings::default(), "another tenant's settings are its own");
    let read = v1::GetSettingsRequest { tenant: acme.id };
    let got = t.operator().tenants.get_settings(read).await.unwrap().into_inner();
    assert_eq!(got.settings.unwrap().locale, "en");
}

async fn nobody_lets_others_join_above_their_own_rank(t: &Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["settings.read", "settings.update"]).await;
    let mut service = t.with_key(&key).tenants;
    let joins = |role: &str| v1::UpdateSettingsRequest {
        tenant: acme.id.clone(),
        ..update(
            v1::Settings {
                auto_join: Some(v1::AutoJoin { enabled: Some(true), role: role.to_owned() }),
                ..Default::default()
            },
            &["auto_join"],
        )
    };
    assert_refused(service.update_settings(joins("admin")).await, Code::PermissionDenied, "RANK_TOO_LOW");
    let mut admin = t.with_token(&t.member(&acme, "admin").await.token).tenants;
    admin.update_settings(joins("admin")).await.unwrap();
}

async fn the_audit_row_says_which_settings_changed(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let long = "a {}".repeat(100);
    let settings = v1::Settings { locale: "en".to_owned(), ..branding("", &long) };
    owner.update_settings(update(settings, &["*"])).await.unwrap();
    let rows = t.audit(&acme.id).await;
    let row = rows.iter().find(|row| row.action == "TenantService/UpdateSettings").unwrap();
    let digest = tenantry::domain::secret::hex(&tenantry::domain::secret::sha256(long.as_bytes()));
    let expected = json!({
        "branding.css": { "before": null, "after": format!("sha256:{}", &digest[..16]) },
        "locale": { "before": null, "after": "en" },
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&row.changes).unwrap(), expected);
}

async fn a_repeated_change_is_made_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let theme = |name: &str| {
        let branding = v1::Branding { theme: name.to_owned(), ..Default::default() };
        v1::Settings { branding: Some(branding), ..Default::default() }
    };
    let request = v1::UpdateSettingsRequest { request_id: request_id(), ..update(theme(&unique("a")), &[]) };
    let first = owner.update_settings(request.clone()).await.unwrap().into_inner();
    owner.update_settings(update(theme("b"), &[])).await.unwrap();
    assert_eq!(owner.update_settings(request.clone()).await.unwrap().into_inner(), first);
    let other = v1::UpdateSettingsRequest { settings: Some(theme("c")), ..request };
    assert_refused(owner.update_settings(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let got = owner.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    assert_eq!((got.settings.unwrap(), got.etag.as_str()), (theme("b"), "\"v2\""));
}
