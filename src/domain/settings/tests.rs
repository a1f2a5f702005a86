//! Tests of the settings' masks, overlay and bounds.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Settings with every leaf set.
fn full() -> Settings {
    let value = json!({
        "locale": "en-US", "time_zone": "Europe/Berlin", "currency": "EUR", "date_format": "YYYY-MM-DD",
        "contact": {
            "name": "Ann", "email": "ann@example.com", "phone": "+49 30 1", "address": "Street 1\nBerlin",
            "website": "http://example.com",
        },
        "billing": {
            "name": "Acme", "email": "pay@example.com", "address": "Street 2", "tax_id": "DE1", "reference": "4711",
        },
        "branding": {
            "logo_url": "https://example.com/l.svg", "primary_color": "#1a2B3c", "secondary_color": "#000000",
            "css": "a { color: red }", "theme": "dark",
        },
        "security": {
            "session_length_seconds": 3600, "max_sign_in_attempts": 5, "mfa_required": true,
            "sign_in_methods": ["password", "oidc"], "password_expiry_days": 90,
        },
        "compliance": {
            "coppa": true, "ferpa": true, "gdpr": true, "parental_consent_required": true, "retention_days": 30,
            "audit_reads": true,
        },
        "auto_join": { "enabled": true, "role": "member" },
        "invitations": { "expiry_days": 7 },
        "usage_report": "monthly",
        "custom": { "a": 1, "b": { "c": [1, 2] } },
    });
    serde_json::from_value(value).unwrap()
}

fn masked(own: &Settings, new: &Settings, paths: &[&str]) -> Settings {
    let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
    Settings::masked(own, new, &paths).unwrap()
}

/// The paths of what is wrong.
fn wrong(value: serde_json::Value) -> Vec<String> {
    let settings: Settings = serde_json::from_value(value).unwrap();
    settings.problems().into_iter().map(|(path, _)| path).collect()
}

#[test]
fn every_leaf_is_known_to_masks_and_to_paths() {
    let mut known: Vec<String> = TOP.iter().map(|&leaf| leaf.to_owned()).collect();
    for (section, leaves) in SECTIONS {
        known.extend(leaves.iter().map(|leaf| format!("{section}.{leaf}")));
    }
    known.sort();
    let mut set = full().paths();
    set.sort();
    assert_eq!(set, known);
    assert_eq!(full().problems(), []);
}

#[test]
fn what_is_not_set_comes_from_the_defaults() {
    let own: Settings = serde_json::from_value(json!({
        "locale": "de-DE", "branding": { "css": "b {}" }, "security": { "mfa_required": false, "sign_in_methods": [] },
        "custom": { "b": 2 },
    }))
    .unwrap();
    let holds = own.over(&full());
    assert_eq!(holds.locale.as_deref(), Some("de-DE"));
    assert_eq!(holds.currency.as_deref(), Some("EUR"));
    assert_eq!(holds.branding.css.as_deref(), Some("b {}"));
    assert_eq!(holds.branding.theme.as_deref(), Some("dark"));
    assert_eq!(holds.security.mfa_required, Some(false));
    assert_eq!(holds.security.sign_in_methods, Some(vec![]));
    assert_eq!(json!(holds.custom), json!({ "a": 1, "b": 2 }));
    assert_eq!(Settings::default().over(&full()), full());
    assert_eq!(full().over(&Settings::default()), full());
}

#[test]
fn a_mask_takes_what_it_names_and_nothing_else() {
    let none = Settings::default();
    assert_eq!(masked(&none, &full(), &["*"]), full());
    assert_eq!(masked(&full(), &none, &["*"]), none);
    assert_eq!(masked(&full(), &none, &[]), full());
    let css = masked(&none, &full(), &["branding.css"]);
    assert_eq!(css.paths(), ["branding.css"]);
    assert_eq!(masked(&full(), &css, &["branding"]).branding, css.branding);
    assert_eq!(masked(&full(), &css, &["branding.theme"]).branding.theme, None);
    assert_eq!(masked(&full(), &none, &["custom"]).custom.len(), 0);
    // A section that ends up empty leaves nothing behind.
    let cleared = masked(&css, &none, &["branding.css"]);
    assert_eq!(serde_json::to_string(&cleared).unwrap(), "{}");
}

#[test]
fn a_mask_that_names_no_setting_is_refused_by_name() {
    for path in
        ["", ".", "Locale", "branding.", "branding.nope", ".css", "branding.css.x", "custom.a", "**", "locale.x"]
    {
        let paths = ["locale".to_owned(), path.to_owned()];
        assert_eq!(Settings::masked(&full(), &full(), &paths), Err(path.to_owned()));
    }
}

#[test]
fn names_that_there_are_not_do_not_read() {
    for text in [r#"{"nope": 1}"#, r#"{"branding": {"nope": 1}}"#, r#"{"locale": 1}"#, r#"{"custom": []}"#] {
        assert!(serde_json::from_str::<Settings>(text).is_err(), "{text}");
    }
    assert!(toml::from_str::<Settings>("locale = 'en'\n[branding]\ntheme = 'x'").is_ok());
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let many = json!({
        "locale": "english please", "time_zone": "Berlin", "currency": "eur", "date_format": "",
        "contact": {
            "name": "a\nb", "email": "ann", "phone": "x".repeat(65), "address": "x".repeat(501), "website": "ftp://a.b",
        },
        "billing": { "name": "", "email": "@", "address": "\u{0}", "tax_id": "", "reference": "ä".repeat(201) },
        "branding": {
            "logo_url": "http://a.b/l.svg", "primary_color": "red", "secondary_color": "#12345g", "css": "</STYLE>",
            "theme": "",
        },
        "security": {
            "session_length_seconds": 299, "max_sign_in_attempts": 2, "sign_in_methods": ["oidc", "sms", "oidc"],
            "password_expiry_days": -1,
        },
        "compliance": { "retention_days": 3651 },
        "auto_join": { "role": "" },
        "custom": { "x": "y".repeat(CUSTOM_TOO_LONG) },
    });
    let settings: Settings = serde_json::from_value(many.clone()).unwrap();
    let mut expected = settings.paths();
    expected.retain(|path| path != "security.sign_in_methods");
    expected.extend(["security.sign_in_methods[1]".to_owned(), "security.sign_in_methods[2]".to_owned()]);
    let mut found = wrong(many);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

const CUSTOM_TOO_LONG: usize = 16 * 1024;

#[test]
fn a_style_sheet_cannot_get_out_or_load_another() {
    let css = |text: &str| wrong(json!({ "branding": { "css": text } }));
    for good in
        ["a{}", "a::after { content: '\\201C' }", "/* import */ .style > a { width: calc(1px + 2px) }", "a\\:b{}"]
    {
        assert_eq!(css(good), [""; 0], "{good}");
    }
    for bad in [
        "a{}</style><script>",
        "a{}</StYlE >",
        "@import url(x)",
        "@IMPORT 'x'",
        "@\\69mport 'x'",
        "@\\000069 mport 'x'",
        "@\\IMPORT 'x'",
        "a{width:expression(alert(1))}",
        "a{width:exp/**/ression(alert(1))}",
        "a{width:ex\\70 ression(alert(1))}",
        "a{content:'/*'} @\\69mport 'x'",
        "a{width:exp\\72/* */ession(1)}",
        "a{}\u{0}",
        "",
    ] {
        assert_eq!(css(bad), ["branding.css"], "{bad}");
    }
    assert_eq!(css(&"x".repeat(32 * 1024)), [""; 0]);
    assert_eq!(css(&"x".repeat(32 * 1024 + 1)), ["branding.css"]);
}

#[test]
fn an_address_in_the_web_names_a_host_and_no_password() {
    let logo = |text: &str| wrong(json!({ "branding": { "logo_url": text } })).is_empty();
    assert!(logo("https://example.com/a.svg?x=1"));
    let long = format!("https://example.com/{}", "x".repeat(2048));
    let bad =
        ["", "https://", "javascript:alert(1)", "https://u:p@a.b/", "https://u@a.b/", "https://a.b/ x", "//a.b/x"];
    for bad in bad.into_iter().chain(["https://a.b/\n", "data:image/png;base64,AA", " https://a.b", long.as_str()]) {
        assert!(!logo(bad), "{bad}");
    }
}

#[test]
fn languages_and_time_zones_are_those_that_there_are() {
    let locale = |text: &str| wrong(json!({ "locale": text })).is_empty();
    for good in ["en", "de-DE", "zh-Hant-TW", "es-419", "sl-rozaj", "en-US-u-hc-h23", "ast"] {
        assert!(locale(good), "{good}");
    }
    for bad in ["", "e", "en_US", "en-", "-en", "en--US", "en US", "123", "\u{0}", &"en-".repeat(100)] {
        assert!(!locale(bad), "{bad}");
    }
    let zone = |text: &str| wrong(json!({ "time_zone": text })).is_empty();
    for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Asia/Kolkata"] {
        assert!(zone(good), "{good}");
    }
    for bad in ["", "europe/berlin", "Berlin", "+02:00", "../etc/passwd", "Europe/Berlin\u{0}"] {
        assert!(!zone(bad), "{bad}");
    }
}

#[test]
fn custom_is_bounded_in_size_and_depth() {
    let nested = |depth: usize| (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }));
    assert_eq!(wrong(json!({ "custom": nested(32) })), [""; 0]);
    assert_eq!(wrong(json!({ "custom": nested(33) })), ["custom"]);
    // {"x":"..."} takes eight bytes around the text.
    assert_eq!(wrong(json!({ "custom": { "x": "y".repeat(16 * 1024 - 8) } })), [""; 0]);
    assert_eq!(wrong(json!({ "custom": { "x": "y".repeat(16 * 1024 - 7) } })), ["custom"]);
    let dated: Settings = toml::from_str("[custom]\nsince = 2026-01-01").unwrap();
    assert_eq!(dated.problems().len(), 1);
}

/// Settings with any leaves of `full` set.
fn some() -> impl Strategy<Value = Settings> {
    proptest::sample::subsequence(full().paths(), 0..=full().paths().len())
        .prop_map(|paths| Settings::masked(&Settings::default(), &full(), &paths).unwrap())
}

proptest! {
    #[test]
    fn what_a_mask_names_reads_back_and_the_rest_stays(
        own in some(),
        new in some(),
        paths in proptest::sample::subsequence(full().paths(), 0..=full().paths().len()),
    ) {
        // Another value, so that what comes from where shows.
        let mut new = new;
        if let Some(css) = &mut new.branding.css {
            css.push(' ');
        }
        let after = Settings::masked(&own, &new, &paths).unwrap();
        let leaf = |settings: &Settings, path: &str| settings.leaves().into_iter().find(|(name, _)| name == path);
        for path in full().paths() {
            let from = if paths.contains(&path) { &new } else { &own };
            prop_assert_eq!(leaf(&after, &path), leaf(from, &path));
        }
        let text = serde_json::to_string(&after).unwrap();
        prop_assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), after.clone());
        // What a tenant has set itself holds whatever the defaults are.
        for (path, value) in after.leaves() {
            if path != "custom" {
                prop_assert_eq!(leaf(&after.over(&full()), &path), Some((path, value)));
            }
        }
    }

    #[test]
    fn no_text_makes_the_checks_fail(text in any::<String>()) {
        let mut settings = full();
        settings.locale = Some(text.clone());
        settings.time_zone = Some(text.clone());
        settings.branding.css = Some(text.clone());
        settings.branding.logo_url = Some(text.clone());
        settings.branding.primary_color = Some(text.clone());
        settings.contact.email = Some(text);
        let _ = settings.problems();
    }
}
