//! Plans, limits and features by the command line.

use chrono::TimeDelta;
use serde_json::Value;
use tenantry::time::Clock as _;

use super::{json, lines, refused, text};
use crate::harness::{Bed, on_both_engines};

on_both_engines! {
    the_price_list_is_read_by_people_and_scripts
    a_plan_changes_after_it_is_said_what_that_means
    a_subscription_is_cancelled_paused_and_renewed
    a_limit_is_set_for_a_time_and_cleared
    a_feature_is_switched_and_given_back
}

/// A product with prices.
const SCHOOLS: &str = r#"
default_plan = "free"
[metrics.classes]
unit = "classes"
[features]
chat = "A chat"
badges = "Badges"
sso = "Single sign-on"
[plans.free]
features = ["chat"]
limits = { classes = 5 }
[plans.school]
includes = "free"
features = ["badges"]
limits = { classes = 50 }
currency = "USD"
price = { month = 2900, year = 29000 }
"#;

async fn the_price_list_is_read_by_people_and_scripts(shared: &Bed) {
    let t = &Bed::of_product(shared.engine, SCHOOLS).await;
    let table = text(t, &["plan", "list"]);
    assert!(table.contains("PRICE") && table.contains("USD 29.00 a month, USD 290.00 a year"), "{table}");
    assert!(table.contains("free"), "{table}");
    let plans = lines(t, &["plan", "list"]);
    let school = plans.iter().find(|plan| plan["plan"] == "school").unwrap();
    assert_eq!(school["prices"][0], serde_json::json!({"cycle": "month", "amount": 2900}));
    assert_eq!((&school["version"], &school["seats"]), (&1.into(), &Value::Null));
}

async fn a_plan_changes_after_it_is_said_what_that_means(shared: &Bed) {
    let t = &Bed::of_product(shared.engine, SCHOOLS).await;
    let acme = t.tenant("acme").await;
    let before = json(t, &["plan", "show", &acme.slug]);
    let told = text(t, &["plan", "change", &acme.slug, "school", "--cycle", "year", "--dry-run"]);
    assert!(told.contains("Features gained: badges") && told.contains("Nothing was done"), "{told}");
    assert_eq!(json(t, &["plan", "show", &acme.slug]), before);

    let told = text(t, &["plan", "change", &acme.slug, "school", "--cycle", "year"]);
    assert!(told.contains("Features gained: badges") && told.contains("USD 290.00"), "{told}");
    assert_eq!(json(t, &["plan", "show", &acme.slug])["cycle"], "year");

    let consume =
        tenantry::rpc::v1::ConsumeRequest { amounts: crate::harness::amounts(&[("classes", 9)]), ..Default::default() };
    t.with_token(&acme.owner.token).usage.consume(consume).await.expect("consumes");
    let told = json(t, &["plan", "change", &acme.slug, "free", "--dry-run"]);
    assert_eq!((&told["exceeded"][0]["used"], &told["lost_features"][0]), (&9.into(), &"badges".into()));
    refused(t, &["plan", "change", &acme.slug, "free"], "PLAN_EXCEEDED");
    let later = json(t, &["plan", "change", &acme.slug, "free", "--at-period-end", "--allow-exceeding"]);
    assert_eq!(
        (&later["subscription"]["plan"], &later["subscription"]["next_plan"]),
        (&"school".into(), &"free".into())
    );
    let now = json(t, &["plan", "change", &acme.slug, "free", "--allow-exceeding"]);
    assert_eq!(now["subscription"]["plan"], "free");
    refused(t, &["plan", "change", &acme.slug, "platinum"], "PLAN_UNKNOWN");
}

async fn a_subscription_is_cancelled_paused_and_renewed(shared: &Bed) {
    let t = &Bed::of_product(shared.engine, SCHOOLS).await;
    let acme = t.tenant("acme").await;
    refused(t, &["plan", "renew", &acme.slug], "WRONG_STATE");
    text(t, &["plan", "change", &acme.slug, "school"]);
    let first = json(t, &["plan", "show", &acme.slug]);
    let renewed = json(t, &["plan", "renew", &acme.slug]);
    assert_ne!(renewed["paid_until_time"], first["paid_until_time"]);
    assert_eq!(json(t, &["plan", "pause", &acme.slug])["status"], "paused");
    assert!(text(t, &["plan", "resume", &acme.slug]).contains("active"));
    refused(t, &["plan", "resume", &acme.slug], "WRONG_STATE");
    let later = json(t, &["plan", "cancel", &acme.slug, "--at-period-end", "--yes"]);
    assert_eq!((&later["status"], &later["cancel_at_period_end"]), (&"active".into(), &true.into()));
    let over = json(t, &["plan", "cancel", &acme.slug, "--yes", "--reason", "moved away"]);
    assert_eq!(over["status"], "cancelled");
}

async fn a_limit_is_set_for_a_time_and_cleared(t: &Bed) {
    let acme = t.tenant("acme").await;
    let set = json(t, &["limit", "set", &acme.slug, "quizzes", "500", "--days", "30", "--reason", "launch"]);
    assert_eq!((&set["limit"], &set["source"], &set["plan_limit"]), (&500.into(), &"override".into(), &100.into()));
    assert!(set["expire_time"].is_string());
    let table = text(t, &["limit", "list", &acme.slug]);
    let row = table.lines().find(|line| line.starts_with("quizzes ")).expect("a row");
    assert!(row.contains("500") && row.contains("override") && row.contains("counter"), "{table}");
    assert!(text(t, &["limit", "set", &acme.slug, "quizzes", "unlimited"]).contains("unlimited"));
    let cleared = json(t, &["limit", "clear", &acme.slug, "quizzes"]);
    assert_eq!((&cleared["limit"], &cleared["source"]), (&100.into(), &"plan".into()));
    let day = t.clock.now().after(TimeDelta::days(60)).utc().format("%Y-%m-%d").to_string();
    let until = format!("{day}T02:00:00+02:00");
    let set = json(t, &["limit", "set", &acme.slug, "quizzes", "1", "--until", &until]);
    assert_eq!(set["expire_time"], format!("{day}T00:00:00Z"));
    refused(t, &["limit", "set", &acme.slug, "nothing", "5"], "METRIC_UNKNOWN");
}

async fn a_feature_is_switched_and_given_back(shared: &Bed) {
    let t = &Bed::of_product(shared.engine, SCHOOLS).await;
    let acme = t.tenant("acme").await;
    let on = json(t, &["feature", "set", &acme.slug, "sso", "on", "--days", "14"]);
    assert_eq!((&on["enabled"], &on["in_plan"], &on["source"]), (&true.into(), &false.into(), &"override".into()));
    let off = json(t, &["feature", "set", &acme.slug, "chat", "off"]);
    assert_eq!((&off["enabled"], &off["in_plan"]), (&false.into(), &true.into()));
    let table = text(t, &["feature", "list", &acme.slug]);
    assert!(table.contains("Single sign-on") && table.contains("override"), "{table}");
    assert_eq!(json(t, &["feature", "clear", &acme.slug, "chat"])["enabled"], true);
    assert_eq!(json(t, &["feature", "clear", &acme.slug, "sso"])["enabled"], false);
    refused(t, &["feature", "set", &acme.slug, "nothing", "on"], "FEATURE_UNKNOWN");
}
