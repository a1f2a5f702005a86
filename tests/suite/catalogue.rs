//! The catalogue: what a new one changes and what it leaves as it was, who is told, and what is refused whole.

use std::fs;

use serde_json::Value;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::harness::{
    Bed, CATALOGUE, Engine, Tenant, amounts, assert_refused, on_both_engines, request_id, unique, until, wrong_fields,
};
use crate::program::{output, tenantry};

on_both_engines! {
    it_is_the_operators_to_apply_and_services_may_read_it;
    alone
    a_new_version_of_a_plan_is_for_new_tenants_until_the_others_are_moved
    a_preview_says_who_would_be_over_a_limit_and_changes_nothing
    a_plan_that_is_gone_keeps_its_tenants_and_takes_no_more
    roles_that_members_have_cannot_go
    a_bad_file_is_named_by_line_and_nothing_is_applied
    of_two_who_apply_at_once_none_loses_a_version
    the_same_file_or_request_again_changes_nothing
    who_leaves_a_plan_with_time_is_not_moved_back_onto_it
    the_catalogues_of_five_products_apply
    a_start_applies_a_new_file_once_and_never_brings_an_old_one_back
    an_operator_checks_compares_and_applies_by_command_line
}

type Answer<T> = Result<Response<T>, Status>;

async fn ask(t: &Bed, toml: &str, validate_only: bool, migrate_tenants: bool) -> Answer<v1::ApplyCatalogueResponse> {
    let request =
        v1::ApplyCatalogueRequest { request_id: request_id(), toml: toml.to_owned(), validate_only, migrate_tenants };
    t.operator().tenants.apply_catalogue(request).await
}

async fn apply(t: &Bed, toml: &str) -> v1::ApplyCatalogueResponse {
    ask(t, toml, false, false).await.expect("applies").into_inner()
}

async fn in_force(t: &Bed) -> v1::GetCatalogueResponse {
    t.operator().tenants.get_catalogue(v1::GetCatalogueRequest {}).await.expect("is shown").into_inner()
}

/// The limit that a tenant's owner is told.
async fn limit(t: &Bed, tenant: &Tenant, metric: &str) -> Option<i64> {
    let request = v1::GetUsageRequest { metrics: vec![metric.to_owned()], ..Default::default() };
    let usage = t.with_token(&tenant.owner.token).usage.get_usage(request).await.expect("usage").into_inner().usage;
    usage[0].limit
}

async fn consume(t: &Bed, tenant: &Tenant, metric: &str, amount: i64) {
    let request = v1::ConsumeRequest { amounts: amounts(&[(metric, amount)]), ..Default::default() };
    t.with_token(&tenant.owner.token).usage.consume(request).await.expect("is consumed");
}

async fn subscription(t: &Bed, tenant: &Tenant) -> v1::Subscription {
    let request = v1::GetSubscriptionRequest { tenant: tenant.id.clone() };
    t.operator().tenants.get_subscription(request).await.unwrap().into_inner().subscription.unwrap()
}

/// A catalogue with something else in one place.
fn with(from: &str, to: &str) -> String {
    assert!(CATALOGUE.contains(from));
    CATALOGUE.replacen(from, to, 1)
}

async fn it_is_the_operators_to_apply_and_services_may_read_it(t: &Bed) {
    let acme = t.tenant("acme").await;
    let request = v1::ApplyCatalogueRequest { toml: CATALOGUE.to_owned(), ..Default::default() };
    let read = v1::GetCatalogueRequest {};
    let service = t.service_key(&["catalogue.read"]).await;
    let other = t.service_key(&["tenant.read"]).await;
    for mut clients in [t.with_token(&acme.owner.token), t.with_key(&service)] {
        let refused = clients.tenants.apply_catalogue(request.clone()).await;
        assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
    let owner = t.with_token(&acme.owner.token).tenants.get_catalogue(read).await;
    assert_refused(owner, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let without = t.with_key(&other).tenants.get_catalogue(read).await;
    assert_refused(without, Code::PermissionDenied, "PERMISSION_MISSING");
    let anonymous = t.anonymous().tenants.apply_catalogue(request).await;
    assert_refused(anonymous, Code::Unauthenticated, "CREDENTIAL_MISSING");
    let shown = t.with_key(&service).tenants.get_catalogue(read).await.expect("is shown").into_inner();
    assert_eq!((shown.version, shown.toml.as_str()), (1, CATALOGUE));
    assert!(shown.apply_time.is_some() && shown.plans.iter().any(|plan| plan.plan == "pro" && plan.version == 1));
    let plans = t.anonymous().tenants.list_plans(v1::ListPlansRequest {}).await.expect("for everybody").into_inner();
    assert_eq!(plans.plans.iter().map(|plan| plan.plan.as_str()).collect::<Vec<_>>(), ["free", "pro"]);
}

async fn a_new_version_of_a_plan_is_for_new_tenants_until_the_others_are_moved(t: Bed) {
    let old = t.tenant("old").await;
    let other = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let changed = with("quizzes = 100", "quizzes = 50");
    let applied = apply(&t, &changed).await;
    assert_eq!(applied.version, 2);
    let change = &applied.changes[0];
    assert_eq!((applied.changes.len(), change.path.as_str()), (1, "plans.free.limits.quizzes"));
    assert_eq!((change.before.as_str(), change.after.as_str()), ("100", "50"));
    let plan = &applied.plans[0];
    assert_eq!((plan.plan.as_str(), plan.new_version, plan.tenants), ("free", 2, 1));
    let new = t.tenant("new").await;
    assert_eq!((limit(&t, &old, "quizzes").await, limit(&t, &new, "quizzes").await), (Some(100), Some(50)));
    if let Some(other) = &other {
        // With its next call, without having been told.
        assert_eq!(limit(other, &new, "quizzes").await, Some(50));
        assert_eq!(limit(other, &old, "quizzes").await, Some(100));
    }
    assert_eq!(subscription(&t, &old).await.plan_version, 1);

    // The same file, and now everybody: no new version comes of it.
    let moved = ask(&t, &changed, false, true).await.expect("applies").into_inner();
    assert_eq!((moved.version, moved.changes.len()), (2, 0));
    let (bed, tenant) = (&t, &old);
    until("the tenant is moved", || async move { limit(bed, tenant, "quizzes").await == Some(50) }).await;
    assert_eq!(subscription(&t, &old).await.plan_version, 2);
    let audit = t.audit(&old.id).await;
    let row = audit.iter().find(|row| row.changes.contains("plan_version")).expect("an audit row");
    assert_eq!(row.action, "System/MigratePlan");
    if let Some(other) = other {
        assert_eq!(limit(&other, &old, "quizzes").await, Some(50));
        other.stop().await;
    }
    t.stop().await;
}

async fn a_preview_says_who_would_be_over_a_limit_and_changes_nothing(t: Bed) {
    let (small, large, granted, lowered) =
        (t.tenant("small").await, t.tenant("large").await, t.tenant("granted").await, t.tenant("lowered").await);
    for (tenant, used) in [(&small, 5), (&large, 60), (&granted, 60), (&lowered, 9)] {
        consume(&t, tenant, "quizzes", used).await;
    }
    t.member(&large, "member").await;
    t.member(&lowered, "member").await;
    for (tenant, metric, limit) in [(&granted, "quizzes", 60), (&lowered, "quizzes", 8), (&lowered, "members", 1)] {
        let value = v1::set_limit_override_request::Value::Limit(limit);
        t.set_limit(tenant, metric, value).await;
    }
    let over = async |rest: &str| {
        let toml = with("[plans.free.limits]\nquizzes = 100", rest);
        let preview = ask(&t, &toml, true, false).await.expect("is shown").into_inner();
        assert_eq!(preview.version, 2);
        let plan = preview.plans.into_iter().next().expect("a plan");
        assert_eq!((plan.plan.as_str(), plan.tenants), ("free", 4));
        let name = |id: &str| [&small, &large, &granted, &lowered].iter().position(|t| t.id == id).unwrap();
        let mut named: Vec<_> =
            plan.over_limit.iter().map(|o| (name(&o.tenant_id), o.metric.clone(), o.used, o.limit)).collect();
        named.sort();
        (named, plan.over_limit_tenants)
    };
    let quizzes = |who: usize, used: i64, limit: i64| (who, "quizzes".to_owned(), used, limit);
    let members = |who: usize, used: i64, limit: i64| (who, "members".to_owned(), used, limit);
    assert_eq!(
        over("[plans.free.limits]\nquizzes = 50").await,
        (vec![quizzes(1, 60, 50), quizzes(3, 9, 8)], 2),
        "an override comes before the plan's number, whether it is larger or smaller"
    );
    // A soft limit lets more through, of an override too: 8 and a half are 12.
    assert_eq!(over("[plans.free.limits]\nquizzes = { limit = 40, soft_percent = 50 }").await, (vec![], 0));
    assert_eq!(
        over("[plans.free]\nseats = 1\n[plans.free.limits]\nquizzes = 50").await,
        (vec![members(1, 2, 1), quizzes(1, 60, 50), members(3, 2, 1), quizzes(3, 9, 8)], 2)
    );
    assert_eq!(
        over("[plans.free]\nseats = 2\n[plans.free.limits]\nquizzes = 60").await,
        (vec![members(3, 2, 1), quizzes(3, 9, 8)], 1)
    );
    assert_eq!(in_force(&t).await.version, 1);
    assert_eq!(limit(&t, &small, "quizzes").await, Some(100));
    t.stop().await;
}

async fn a_plan_that_is_gone_keeps_its_tenants_and_takes_no_more(t: Bed) {
    let acme = t.tenant("acme").await;
    let create = |plan: &str| v1::CreateTenantRequest {
        request_id: request_id(),
        display_name: "Acme".to_owned(),
        slug: unique("acme"),
        owner_email: acme.owner.email.clone(),
        plan: plan.to_owned(),
    };
    let on_pro = t.operator().tenants.create_tenant(create("pro")).await.expect("is created").into_inner();
    let gone = with("[plans.pro.limits]\nquizzes = 5000\n", "");
    let applied = apply(&t, &gone).await;
    let change = &applied.changes[0];
    assert_eq!((change.path.as_str(), change.after.as_str()), ("plans.pro", ""));
    assert_eq!((applied.plans[0].plan.as_str(), applied.plans[0].new_version, applied.plans[0].tenants), ("pro", 0, 1));
    let refused = t.operator().tenants.create_tenant(create("pro")).await;
    assert_refused(refused, Code::InvalidArgument, "PLAN_UNKNOWN");
    let id = on_pro.tenant.unwrap().tenant_id;
    let owner = t.login(&acme.owner, &id).await;
    let kept = Tenant { id, slug: String::new(), owner };
    assert_eq!(limit(&t, &kept, "quizzes").await, Some(5000));
    assert!(in_force(&t).await.plans.iter().any(|plan| plan.plan == "pro"));
    // It comes back as another version.
    let back = apply(&t, &with("quizzes = 5000", "quizzes = 6000")).await;
    assert_eq!((back.plans[0].plan.as_str(), back.plans[0].new_version, back.plans[0].tenants), ("pro", 2, 1));
    assert_eq!(limit(&t, &kept, "quizzes").await, Some(5000));
    t.stop().await;
}

async fn roles_that_members_have_cannot_go(t: Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let roles = "\n[roles.owner]\nrank = 2\npermissions = [\"*\"]\n[roles.helper]\nrank = 1\n";
    let toml = format!("{CATALOGUE}{roles}");
    let preview = ask(&t, &toml, true, false).await.expect("is shown").into_inner();
    assert_eq!(preview.roles_in_use, ["viewer"]);
    let refused = ask(&t, &toml, false, false).await;
    assert!(refused.as_ref().unwrap_err().message().contains("viewer"), "{refused:?}");
    assert_eq!(wrong_fields(refused), ["toml"]);
    assert_eq!(in_force(&t).await.version, 1);
    // Nor can another role be put above the one that owners have.
    let above = format!("{CATALOGUE}{roles}[roles.viewer]\nrank = 0\n[roles.chief]\nrank = 3\npermissions = [\"*\"]\n");
    let preview = ask(&t, &above, true, false).await.expect("is shown").into_inner();
    assert_eq!(preview.roles_in_use, ["owner"]);
    assert_eq!(wrong_fields(ask(&t, &above, false, false).await), ["toml"]);
    let remove = v1::RemoveMemberRequest { tenant: acme.id.clone(), user_id: viewer.id.clone(), ..Default::default() };
    t.operator().members.remove_member(remove).await.expect("is removed");
    assert_eq!(apply(&t, &toml).await.version, 2);
    t.stop().await;
}

async fn a_bad_file_is_named_by_line_and_nothing_is_applied(t: Bed) {
    let acme = t.tenant("acme").await;
    let rate = "[[rpc_rates]]\nmethod = \"TenantService/Nothing\"\nper = \"caller\"\ncount = 1\nseconds = 1\n";
    let bad = format!("{}{rate}", with("quizzes = 100", "quizzes = 50\nquizes = -1\nstorms = 1.5"));
    let line = |needle: &str| bad.lines().position(|line| line.contains(needle)).unwrap() + 1;
    let status = ask(&t, &bad, false, true).await.expect_err("a refusal");
    let wrong = status.get_details_bad_request().unwrap().field_violations;
    let lines: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    let expected = ["quizes", "storms = 1.5", "TenantService/Nothing"].map(|needle| format!("line {}", line(needle)));
    assert_eq!(lines, expected, "{wrong:#?}");
    assert!(wrong[1].description.starts_with("plans.free.limits.storms: "), "{wrong:#?}");
    assert_refused::<()>(Err(status), Code::InvalidArgument, "CATALOGUE_INVALID");
    // As many as there are, and as long: what does not fit into a header is only counted.
    let many = (0..60).map(|n| format!("\"{n}{}\"", "é".repeat(3000))).collect::<Vec<_>>().join(",\n");
    let refused = ask(&t, &format!("{CATALOGUE}[plans.new]\nfeatures = [\n{many}]\n"), true, false).await;
    let told = refused.as_ref().unwrap_err().get_details_bad_request().unwrap().field_violations;
    assert!(told.last().unwrap().description.contains("more problems"), "{told:?}");
    assert_refused(refused, Code::InvalidArgument, "CATALOGUE_INVALID");
    for text in ["", "not = toml = at all", "default_plan = \"free\""] {
        ask(&t, text, false, false).await.expect_err("a refusal");
    }
    assert_eq!(in_force(&t).await.version, 1);
    assert_eq!(limit(&t, &acme, "quizzes").await, Some(100));
    t.stop().await;
}

async fn of_two_who_apply_at_once_none_loses_a_version(t: Bed) {
    let mut expected = 1;
    for round in 0..5 {
        let texts: Vec<String> =
            (0..4).map(|n| with("quizzes = 100", &format!("quizzes = {}", 10 + round * 4 + n))).collect();
        let asked = texts.iter().map(|toml| ask(&t, toml, false, false));
        let mut versions = Vec::new();
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(applied) => versions.push(applied.into_inner().version),
                refused => assert_refused(refused, Code::Aborted, "ETAG_MISMATCH"),
            }
        }
        versions.sort_unstable();
        assert!(!versions.is_empty(), "one of them comes first");
        assert_eq!(versions, (expected + 1..=expected + i64::try_from(versions.len()).unwrap()).collect::<Vec<_>>());
        expected = *versions.last().unwrap();
        let shown = in_force(&t).await;
        assert_eq!(shown.version, expected);
        let free: Vec<_> = shown.plans.iter().filter(|plan| plan.plan == "free").collect();
        assert_eq!(free.len(), usize::try_from(expected).unwrap(), "each has its own version of the plan");
        let newest = free.iter().max_by_key(|plan| plan.version).unwrap();
        let limit = newest.limits.iter().find(|limit| limit.metric == "quizzes").unwrap().limit;
        assert!(shown.toml.contains(&format!("quizzes = {limit}\n")), "the file and its plan belong together");
    }
    t.stop().await;
}

async fn the_same_file_or_request_again_changes_nothing(t: Bed) {
    let toml = with("quizzes = 100", "quizzes = 50");
    let request = v1::ApplyCatalogueRequest { request_id: request_id(), toml: toml.clone(), ..Default::default() };
    let first = t.operator().tenants.apply_catalogue(request.clone()).await.unwrap().into_inner();
    let again = t.operator().tenants.apply_catalogue(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let same = apply(&t, &toml).await;
    assert_eq!((same.version, same.changes.len(), same.plans.len()), (2, 0, 0));
    // Other words, same meaning: a file of its own, but no plan has a new version.
    let commented = apply(&t, &format!("# ours\n{toml}")).await;
    assert_eq!((commented.version, commented.changes.len()), (3, 0));
    let shown = in_force(&t).await;
    assert!(shown.toml.starts_with("# ours") && shown.plans.iter().all(|plan| plan.version <= 2));
    let other = v1::ApplyCatalogueRequest { toml: CATALOGUE.to_owned(), ..request };
    let reused = t.operator().tenants.apply_catalogue(other).await;
    assert_refused(reused, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let sql = "select changes from platform_audit where event_id <> $1 and action = 'TenantService/ApplyCatalogue'";
    let audit: Vec<(String,)> = t.rows(sql, &Uuid::nil().to_string()).await;
    assert_eq!(audit.len(), 3, "{audit:?}");
    assert!(audit.iter().all(|(changes,)| changes.contains("digest") && !changes.contains("rpc_rates")), "{audit:?}");
    t.stop().await;
}

async fn who_leaves_a_plan_with_time_is_not_moved_back_onto_it(t: Bed) {
    let trial = |days: u16| {
        format!("{CATALOGUE}[plans.tryout]\ntrial = {{ days = {days}, then = {{ downgrade = \"free\" }} }}\n")
    };
    apply(&t, &trial(14)).await;
    let acme = t.tenant("acme").await;
    let request = v1::CreateTenantRequest {
        display_name: "Acme".to_owned(),
        slug: unique("acme"),
        owner_email: acme.owner.email.clone(),
        plan: "tryout".to_owned(),
        ..Default::default()
    };
    let id = t.operator().tenants.create_tenant(request).await.unwrap().into_inner().tenant.unwrap().tenant_id;
    let tried = Tenant { id, slug: String::new(), owner: acme.owner.clone() };
    // The trial is over, and no job has written it down: the row still says that it runs.
    t.execute("delete from job where subject = $1", &tried.id).await;
    t.clock.advance(chrono::TimeDelta::days(15));
    ask(&t, &trial(30), false, true).await.expect("applies");
    t.run_jobs().await;
    let row = subscription(&t, &tried).await;
    assert_eq!((row.plan.as_str(), row.plan_version), ("free", 1));
    t.stop().await;
}

async fn the_catalogues_of_five_products_apply(t: Bed) {
    let files = ["quizmarker", "mercura", "timetracker", "toolboxai", "smartmaintenance"];
    for (n, file) in (2..).zip(files) {
        let path = format!("{}/tests/scenarios/{file}.toml", env!("CARGO_MANIFEST_DIR"));
        let toml = fs::read_to_string(path).unwrap();
        assert_eq!(apply(&t, &toml).await.version, n, "{file}");
    }
    let plans = t.anonymous().tenants.list_plans(v1::ListPlansRequest {}).await.unwrap().into_inner().plans;
    let names: Vec<&str> = plans.iter().map(|plan| plan.plan.as_str()).collect();
    // What is sold by agreement comes last.
    assert_eq!(names, ["free", "basic", "premium", "enterprise"]);
    assert_eq!(plans[1].prices[0], v1::Price { cycle: v1::BillingCycle::Month.into(), amount: 2900 });
    assert_eq!((plans[0].trial_days, plans[0].trial_ends_into.as_str(), plans[0].seats), (14, "", Some(3)));
    assert_eq!((plans[2].features.len(), plans[3].self_service), (2, false));
    t.stop().await;
}

async fn a_start_applies_a_new_file_once_and_never_brings_an_old_one_back(t: Bed) {
    let file = t.dir.path().join("catalogue.toml");
    let newer = with("quizzes = 100", "quizzes = 50");
    fs::write(&file, &newer).unwrap();
    let t = t.restart().await;
    assert_eq!(in_force(&t).await.version, 2);
    let t = t.restart().await;
    assert_eq!(in_force(&t).await.version, 2, "once");
    apply(&t, &with("quizzes = 100", "quizzes = 70")).await;
    let t = t.restart().await;
    assert_eq!(in_force(&t).await.version, 3, "an operator's word holds against an older file");
    fs::write(&file, CATALOGUE).unwrap();
    let t = t.restart().await;
    let shown = in_force(&t).await;
    assert!(shown.version == 3 && shown.toml.contains("quizzes = 70"), "an old file does not come back");
    t.stop().await;
}

async fn an_operator_checks_compares_and_applies_by_command_line(t: Bed) {
    let file = t.dir.path().join("mine.toml");
    let path = file.to_str().unwrap();
    let run = |args: &[&str]| {
        let mut command = tenantry(["catalogue"]);
        command.args(args).arg("--server").arg(&t.address).arg("--key-file").arg(t.dir.path().join("operator.key"));
        output(command)
    };
    fs::write(&file, "default_plan = \"free\"\n[plans.free]\nseats = 0\ncolour = \"red\"\n").unwrap();
    let (code, out, err) = output(tenantry(["catalogue", "check", path]));
    assert_eq!((code, out.lines().count()), (1, 2), "{out}{err}");
    assert!(out.starts_with(&format!("{path}:3: plans.free.seats: must be")), "{out}");
    assert!(err.contains("has 2 mistakes"), "{err}");
    let (_, out, _) = output(tenantry(["catalogue", "check", path, "--json"]));
    let problem: Value = serde_json::from_str(out.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&problem["line"], &problem["path"]), (&4.into(), &"plans.free.colour".into()));
    let (code, out, err) = run(&["diff", path]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(&format!("{path}:4: plans.free.colour")), "{err}");

    let (code, out, _) = output(tenantry(["catalogue", "example"]));
    fs::write(&file, &out).unwrap();
    assert_eq!((code, output(tenantry(["catalogue", "check", path])).0), (0, 0));

    fs::write(&file, with("quizzes = 100", "quizzes = 50")).unwrap();
    let (code, out, err) = run(&["diff", path]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("plans.free.limits.quizzes") && out.contains("WHAT") && out.contains("TENANTS"), "{out}");
    let (code, out, err) = run(&["apply", path]);
    assert_eq!((code, out.as_str()), (2, ""), "nobody to ask");
    assert!(err.contains("--yes"), "{err}");
    let (code, out, _) = run(&["apply", path, "--dry-run", "--json"]);
    let preview: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &preview["changes"][0]["after"]), (0, &"50".into()));
    assert_eq!(in_force(&t).await.version, 1);
    let (code, out, err) = run(&["apply", path, "--yes", "--migrate-tenants"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("Version 2 of the catalogue is in force; tenants move"), "{out}");
    let (code, out, _) = run(&["show"]);
    assert_eq!((code, out), (0, fs::read_to_string(&file).unwrap()));
    let (_, out, _) = run(&["diff", path]);
    assert_eq!(out, "Nothing changes.\n");
    t.stop().await;
}
