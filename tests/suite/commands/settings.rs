//! Settings and domains by the command line.

use super::{json, lines, refused, text};
use crate::harness::{Bed, on_both_engines, unique};

on_both_engines! {
    settings_change_by_path_and_by_file
    a_domain_is_added_with_a_line_to_paste
}

async fn settings_change_by_path_and_by_file(t: &Bed) {
    let acme = t.tenant("acme").await;
    let set = json(
        t,
        &["settings", "set", &acme.slug, "locale=de-DE", "branding.theme=dark", "security.sign_in_methods=password"],
    );
    assert_eq!(set["own_fields"], serde_json::json!(["branding.theme", "locale", "security.sign_in_methods"]));
    let shown = text(t, &["settings", "show", &acme.slug]);
    let line = shown.lines().find(|line| line.starts_with("branding.theme")).expect("a line");
    assert!(line.contains("dark") && line.ends_with("tenant"), "{shown}");

    let file = t.dir.path().join(format!("{}.json", acme.slug));
    std::fs::write(&file, r#"{"branding": {"theme": null, "logoUrl": "https://a.example/l.png"}, "currency": "EUR"}"#)
        .unwrap();
    let etag = set["etag"].as_str().unwrap();
    let words = ["settings", "set", &acme.slug, "--file", file.to_str().unwrap(), "--etag", etag];
    let set = json(t, &words);
    assert_eq!(set["settings"]["branding"]["theme"], serde_json::Value::Null, "back to the default");
    assert_eq!(set["settings"]["branding"]["logo_url"], "https://a.example/l.png");
    assert_eq!((&set["settings"]["locale"], &set["settings"]["currency"]), (&"de-DE".into(), &"EUR".into()));
    refused(t, &words, "ETAG_MISMATCH");
    refused(t, &["settings", "set", &acme.slug, "time_zone=Mars/Olympus"], "field settings.time_zone");
    assert_eq!(json(t, &["settings", "show", &acme.slug]), set, "nothing was done");
}

async fn a_domain_is_added_with_a_line_to_paste(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = format!("{}.example.org", unique("app"));
    let record = text(t, &["domain", "add", &acme.slug, &domain]);
    let shown = json(t, &["domain", "add", &acme.slug, &domain]);
    assert_eq!(
        record,
        format!("_tenantry-challenge.{domain}. 300 IN TXT \"{}\"\n", shown["txt_value"].as_str().unwrap())
    );
    assert_eq!(
        (&shown["status"], &shown["txt_name"]),
        (&"pending".into(), &format!("_tenantry-challenge.{domain}").into())
    );
    assert!(text(t, &["domain", "list", &acme.slug]).contains(&domain));
    assert!(text(t, &["domain", "remove", &acme.slug, &domain]).contains("leads nowhere"));
    assert!(lines(t, &["domain", "list", &acme.slug]).is_empty());
    refused(t, &["domain", "verify", &acme.slug, &domain], "DOMAIN_NOT_FOUND");
    refused(t, &["domain", "add", &acme.slug, "gmail.com"], "field domain");
}
