//! Tenants by the command line: found, made and changed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{command, json, keys, lines, refused, text};
use crate::harness::{Bed, Engine, on_both_engines, unique};
use crate::program::output;

on_both_engines! {
    an_operator_works_on_tenants
    a_list_goes_through_all_pages_and_ends_where_it_is_told
    json_has_the_contracts_keys_always
    a_tenant_is_provisioned_by_one_command
    a_dry_run_provisions_nothing
    settings_of_a_file_are_checked_before_anything
    names_slugs_and_flags_change
    a_refusal_says_why_and_exits_with_1
}

async fn an_operator_works_on_tenants(t: &Bed) {
    let ada = t.person("ada").await;
    let slug = unique("cli");
    let created = text(
        t,
        &["tenant", "create", "--slug", &slug, "--name", "Acme Ltd", "--owner-email", &ada.email, "--plan", "pro"],
    );
    assert!(created.contains(&slug) && created.contains("Acme Ltd") && created.contains("active"), "{created}");
    assert!(created.contains("pro, version 1"), "{created}");

    let table = text(t, &["tenant", "list", "--slug-prefix", &slug]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("SLUG") && lines[0].contains("STATUS"), "{table}");
    assert!(lines.iter().any(|line| line.contains(&slug) && line.contains("active")), "{table}");

    let shown = json(t, &["tenant", "show", &slug]);
    assert_eq!((&shown["slug"], &shown["status"]), (&slug.as_str().into(), &"active".into()));

    let suspended = json(t, &["tenant", "suspend", &slug, "--reason", "unpaid"]);
    assert_eq!((&suspended["status"], &suspended["suspend_reason"]), (&"suspended".into(), &"unpaid".into()));
    assert_eq!(suspended["suspend_cause"], "operator");
    let listed = json(t, &["tenant", "list", "--status", "suspended", "--slug-prefix", &slug]);
    assert_eq!(listed["tenant_id"], shown["tenant_id"]);

    let id = shown["tenant_id"].as_str().unwrap();
    assert!(text(t, &["tenant", "activate", id]).contains("active"));
}

const MANY_IN_SQLITE: &str = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 1203)
    insert into tenant (tenant_id, slug, display_name, status, plan, version, created_at, updated_at)
    select randomblob(16), 'bulk-' || n.i, 'Bulk', t.status, t.plan, 1, t.created_at, t.updated_at
    from n join tenant t on t.tenant_id = $1";

const MANY_IN_POSTGRES: &str = "insert into tenant
      (tenant_id, slug, display_name, status, plan, version, created_at, updated_at)
    select gen_random_uuid(), 'bulk-' || n, 'Bulk', t.status, t.plan, 1, t.created_at, t.updated_at
    from generate_series(1, 1203) n join tenant t on t.tenant_id = $1";

async fn a_list_goes_through_all_pages_and_ends_where_it_is_told(shared: &Bed) {
    let t = &Bed::private(shared.engine, &[]).await;
    let acme = t.tenant("acme").await;
    t.execute(if t.engine == Engine::Sqlite { MANY_IN_SQLITE } else { MANY_IN_POSTGRES }, &acme.id).await;
    let all = lines(t, &["tenant", "list", "--slug-prefix", "bulk-"]);
    let slugs: BTreeSet<&str> = all.iter().map(|row| row["slug"].as_str().unwrap()).collect();
    assert_eq!((all.len(), slugs.len()), (1203, 1203), "two pages, without a gap and without a repetition");
    let table = text(t, &["tenant", "list"]);
    assert_eq!(table.lines().count(), 1 + 1204, "a header and every tenant");
    for limit in [0, 1, 1000, 1001, 1203, 5000] {
        let listed = lines(t, &["tenant", "list", "--slug-prefix", "bulk-", "--limit", &limit.to_string()]);
        assert_eq!(listed.len(), limit.min(1203));
        assert_eq!(listed[..], all[..limit.min(1203)], "the first ones");
    }
}

/// What scripts are promised of a tenant.
const TENANT_KEYS: [&str; 18] = [
    "create_time",
    "delete_time",
    "demo",
    "display_name",
    "etag",
    "external_id",
    "maintenance",
    "plan",
    "plan_version",
    "purge_time",
    "slug",
    "status",
    "suspend_cause",
    "suspend_reason",
    "tenant_id",
    "trial_end_time",
    "update_time",
    "verified",
];

async fn json_has_the_contracts_keys_always(t: &Bed) {
    let acme = t.tenant("acme").await;
    let shown = json(t, &["tenant", "show", &acme.slug]);
    let listed = json(t, &["tenant", "list", "--slug-prefix", &acme.slug]);
    assert_eq!(shown, listed);
    // serde_json sorts them here; every one is there.
    assert_eq!(keys(&shown), TENANT_KEYS);
    for absent in ["suspend_reason", "suspend_cause", "delete_time", "external_id"] {
        assert_eq!(shown[absent], Value::Null, "{absent}");
    }
    assert_eq!((&shown["plan_version"], &shown["demo"]), (&1.into(), &false.into()));
    assert!(shown["create_time"].as_str().unwrap().ends_with('Z'));
}

async fn a_tenant_is_provisioned_by_one_command(t: &Bed) {
    let (slug, id) = (unique("cli"), unique("crm"));
    let email = format!("{slug}@example.com");
    let file = t.dir.path().join(format!("{slug}.json"));
    std::fs::write(
        &file,
        r##"{"branding": {"theme": "plain", "primaryColor": "#112233"}, "custom": {"classes": 12}}"##,
    )
    .unwrap();
    let wish = ["tenant", "provision", "--slug", &slug, "--name", "Acme Ltd", "--admin-email", &email];
    let mut full = wish.to_vec();
    full.extend(["--admin-name", "Ada", "--plan", "pro", "--external-id", &id, "--demo", "--theme", "dark"]);
    full.extend(["--locale", "de-DE", "--time-zone", "Europe/Berlin", "--currency", "EUR", "--mfa-required"]);
    full.extend(["--session-hours", "8", "--contact-name", "Ada", "--settings", file.to_str().unwrap()]);
    let made = text(t, &full);
    for part in ["STEP", "welcome_mail", "done", &slug, "pro, version 1", "demo", &email, "shown this once"] {
        assert!(made.contains(part), "{part}: {made}");
    }
    let password = made.lines().rev().find(|line| line.starts_with("    ")).expect("a password").trim().to_owned();
    let login = tenantry::rpc::v1::LoginRequest { email: email.clone(), password, ..Default::default() };
    t.anonymous().auth.login(login).await.expect("signs in with what was shown");

    let set = json(t, &["settings", "show", &slug]);
    let set = &set["settings"];
    assert_eq!((&set["branding"]["theme"], &set["branding"]["primary_color"]), (&"dark".into(), &"#112233".into()));
    assert_eq!((&set["custom"]["classes"], &set["security"]["session_length"]), (&12.into(), &"28800s".into()));

    // Once more: nothing to do, and no password.
    let again = json(t, &wish);
    assert_eq!(keys(&again), ["admin", "admin_password", "invitation_link", "invitation_token", "steps", "tenant"]);
    assert_eq!((&again["admin_password"], &again["admin"]["email"]), (&Value::Null, &email.as_str().into()));
    let steps = again["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["step"] == "tenant" && step["outcome"] == "already_done"), "{steps:?}");
    let mut other = wish;
    other[7] = "somebody.else@example.com";
    refused(t, &other, "SLUG_TAKEN");
}

async fn a_dry_run_provisions_nothing(t: &Bed) {
    let slug = unique("cli");
    let email = format!("{slug}@example.com");
    let wish = ["tenant", "provision", "--slug", &slug, "--name", "Acme", "--admin-email", &email, "--dry-run"];
    let told = text(t, &wish);
    assert!(told.contains("Nothing was done") && told.contains(&slug) && !told.contains("shown this once"), "{told}");
    refused(t, &["tenant", "show", &slug], "TENANT_NOT_FOUND");
}

async fn settings_of_a_file_are_checked_before_anything(t: &Bed) {
    let slug = unique("cli");
    let file = t.dir.path().join(format!("{slug}.json"));
    let mut wish = vec!["tenant", "provision", "--slug", &slug, "--name", "A", "--admin-email", "a@example.com"];
    wish.extend(["--settings", file.to_str().unwrap()]);
    for (wrong, word) in [(r#"{"colour": "red"}"#, "colour"), ("{", "line 1"), (r#"{"locale": 5}"#, "line 1")] {
        std::fs::write(&file, wrong).unwrap();
        let (code, out, err) = output(command(t, &wish));
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("--settings") && err.contains(word), "{err}");
    }
    refused(t, &["tenant", "show", &slug], "TENANT_NOT_FOUND");
}

async fn names_slugs_and_flags_change(t: &Bed) {
    let acme = t.tenant("acme").await;
    let etag = json(t, &["tenant", "show", &acme.slug])["etag"].as_str().unwrap().to_owned();
    let named = json(t, &["tenant", "update", &acme.slug, "--name", "Better", "--etag", &etag]);
    assert_eq!(named["display_name"], "Better");
    refused(t, &["tenant", "update", &acme.slug, "--name", "Worse", "--etag", &etag], "ETAG_MISMATCH");

    let flags = json(t, &["tenant", "flags", &acme.slug, "--verified", "true", "--maintenance", "true"]);
    assert_eq!(
        (&flags["verified"], &flags["maintenance"], &flags["demo"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert!(text(t, &["tenant", "flags", &acme.slug, "--maintenance", "false"]).contains("verified"));

    let new = unique("renamed");
    let renamed = text(t, &["tenant", "rename", &acme.slug, "--slug", &new]);
    assert!(renamed.contains(&new) && renamed.contains("The old slug leads to it until"), "{renamed}");
    assert_eq!(json(t, &["tenant", "show", &acme.slug])["slug"], new.as_str(), "by the alias");
    let other = t.tenant("other").await;
    refused(t, &["tenant", "rename", &new, "--slug", &other.slug], "SLUG_TAKEN");
}

async fn a_refusal_says_why_and_exits_with_1(t: &Bed) {
    let acme = t.tenant("acme").await;
    for (args, reason) in [
        (&["tenant", "show", "nobody-has-this"][..], "TENANT_NOT_FOUND"),
        (&["tenant", "activate", &acme.slug], "WRONG_STATE"),
        (&["tenant", "create", "--slug", &acme.slug, "--name", "x", "--owner-email", &acme.owner.email], "SLUG_TAKEN"),
        (&["tenant", "create", "--slug", "a", "--name", "x", "--owner-email", "none"], "field slug: "),
    ] {
        let (code, out, err) = output(command(t, args));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.starts_with("error: ") && err.contains(reason), "{err}");
    }
    let wrong = t.service_key(&["tenant.read"]).await;
    let (code, _, err) = output({
        let mut list = command(t, &["tenant", "list"]);
        list.env("TENANTRY_OPERATOR_KEY", &wrong);
        list
    });
    assert_eq!(code, 1);
    assert!(err.contains("CALLER_KIND_REFUSED") && !err.contains(&wrong), "{err}");
}
