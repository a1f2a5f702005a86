//! Tenants made and ended as a whole: all of it or nothing, repeatable, every step told.

use tenantry::rpc::v1;
use tenantry::rpc::v1::ProvisionOutcome::{AlreadyDone, Done, Skipped};
use tonic::Code;

use crate::harness::{Bed, assert_refused, on_both_engines, request_id, unique, wrong_fields};

on_both_engines! {
    a_tenant_is_made_with_all_that_belongs_to_it
    a_repetition_does_what_is_missing_and_says_what_was_there
    the_same_request_gives_the_same_password_for_a_while
    a_slug_of_somebody_else_is_taken
    what_is_wrong_is_told_before_anything_is_done
    a_template_fills_in_what_is_not_said
    a_pending_tenant_waits_for_an_operator
    in_maintenance_only_operators_change_things
    an_ended_tenant_is_kept_or_deleted
    an_external_id_leads_to_its_tenant_alone
    many_at_once_make_one
}

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
trial = { days = 14, then = { downgrade = "free" } }
currency = "USD"
price = { month = 2900, year = 29000 }
[templates.school]
plan = "school"
features = ["sso"]
settings = { locale = "en-US", branding = { theme = "school" } }
"#;

fn wish(slug: &str, email: &str) -> v1::ProvisionTenantRequest {
    v1::ProvisionTenantRequest {
        display_name: "Acme Ltd".to_owned(),
        slug: slug.to_owned(),
        admin_email: email.to_owned(),
        admin_name: "Ada".to_owned(),
        settings: Some(v1::Settings { time_zone: "Europe/Berlin".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn fresh() -> v1::ProvisionTenantRequest {
    wish(&unique("acme"), &format!("{}@example.com", unique("admin")))
}

/// Steps with how they went.
fn outcomes(steps: &[v1::ProvisionStep]) -> Vec<(&str, v1::ProvisionOutcome)> {
    steps.iter().map(|step| (step.step.as_str(), step.outcome())).collect()
}

const STEPS: [&str; 7] = ["validate", "tenant", "admin", "settings", "features", "verified", "welcome_mail"];

async fn a_tenant_is_made_with_all_that_belongs_to_it(t: &Bed) {
    let request = fresh();
    let mut operator = t.operator();
    let dry = v1::ProvisionTenantRequest { validate_only: true, ..request.clone() };
    let planned = operator.tenants.provision_tenant(dry).await.unwrap().into_inner();
    assert_eq!(planned.steps.iter().map(|s| s.step.as_str()).collect::<Vec<_>>(), STEPS);
    assert!(planned.admin_password.is_empty());
    assert_eq!(planned.tenant.unwrap().tenant_id, "", "what is not there has no id");
    assert_eq!(planned.admin.unwrap().user_id, "", "what is not there has no id");
    let slug = v1::CheckSlugRequest { slug: request.slug.clone() };
    assert!(t.anonymous().tenants.check_slug(slug).await.unwrap().into_inner().available, "nothing was done");

    let done = operator.tenants.provision_tenant(request.clone()).await.unwrap().into_inner();
    let expected = [Done, Done, Done, Done, Skipped, Done, Done];
    assert_eq!(outcomes(&done.steps), STEPS.into_iter().zip(expected).collect::<Vec<_>>());
    let tenant = done.tenant.unwrap();
    assert!(tenant.verified && tenant.status() == v1::TenantStatus::Active, "{tenant:?}");
    let login = v1::LoginRequest {
        email: request.admin_email.clone(),
        password: done.admin_password.clone(),
        ..Default::default()
    };
    assert_eq!(done.admin_password.len(), 20);
    let signed_in = t.anonymous().auth.login(login).await.unwrap().into_inner().access_token.unwrap();
    assert_eq!(signed_in.tenant_id, tenant.tenant_id, "their only tenant is their default");
    let mut admin = t.with_token(&signed_in.token);
    let me = admin.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.roles, ["owner"]);
    let settings = admin.tenants.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    assert_eq!(settings.settings.unwrap().time_zone, "Europe/Berlin");
    let mail: Vec<(String, String)> =
        t.rows("select template, recipient from outbox where tenant_id = $1", &tenant.tenant_id).await;
    assert_eq!(mail, [("welcome".to_owned(), request.admin_email.clone())]);
    let payloads: Vec<(String,)> = t.rows("select payload from outbox where tenant_id = $1", &tenant.tenant_id).await;
    assert!(!payloads[0].0.contains(&done.admin_password));
}

async fn a_repetition_does_what_is_missing_and_says_what_was_there(t: &Bed) {
    let request = v1::ProvisionTenantRequest { skip_welcome_mail: true, ..fresh() };
    let mut operator = t.operator();
    let first = operator.tenants.provision_tenant(request.clone()).await.unwrap().into_inner();
    let again = v1::ProvisionTenantRequest { skip_welcome_mail: false, ..request };
    let second = operator.tenants.provision_tenant(again.clone()).await.unwrap().into_inner();
    let expected = [Done, AlreadyDone, AlreadyDone, AlreadyDone, Skipped, AlreadyDone, Done];
    assert_eq!(outcomes(&second.steps), STEPS.into_iter().zip(expected).collect::<Vec<_>>());
    assert_eq!(first.tenant.unwrap().tenant_id, second.tenant.unwrap().tenant_id);
    assert!(second.admin_password.is_empty(), "shown once");
    let third = operator.tenants.provision_tenant(again).await.unwrap().into_inner();
    assert_eq!(third.steps[6].outcome(), AlreadyDone);
}

async fn the_same_request_gives_the_same_password_for_a_while(t: &Bed) {
    let request = v1::ProvisionTenantRequest { request_id: request_id(), ..fresh() };
    let mut operator = t.operator();
    let first = operator.tenants.provision_tenant(request.clone()).await.unwrap().into_inner();
    let second = operator.tenants.provision_tenant(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, second);
    let other = v1::ProvisionTenantRequest { display_name: "Other".to_owned(), ..request };
    assert_refused(operator.tenants.provision_tenant(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

async fn a_slug_of_somebody_else_is_taken(t: &Bed) {
    let acme = t.tenant("acme").await;
    let stranger = wish(&acme.slug, &format!("{}@example.com", unique("admin")));
    let mut operator = t.operator();
    for validate_only in [true, false] {
        let request = v1::ProvisionTenantRequest { validate_only, ..stranger.clone() };
        assert_refused(operator.tenants.provision_tenant(request).await, Code::AlreadyExists, "SLUG_TAKEN");
    }
    let account = v1::LoginRequest { email: stranger.admin_email, password: "x".repeat(20), ..Default::default() };
    assert_refused(t.anonymous().auth.login(account).await, Code::Unauthenticated, "PASSWORD_WRONG");
    // Its own owner is another matter: that is a repetition.
    let own = operator.tenants.provision_tenant(wish(&acme.slug, &acme.owner.email)).await.unwrap().into_inner();
    assert_eq!(own.tenant.unwrap().tenant_id, acme.id);
}

async fn what_is_wrong_is_told_before_anything_is_done(t: &Bed) {
    let mut operator = t.operator();
    let wrong = v1::ProvisionTenantRequest {
        request_id: "no".to_owned(),
        display_name: String::new(),
        slug: "No".to_owned(),
        admin_email: "nobody".to_owned(),
        trial: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        cycle: 99,
        external_id: "ä".to_owned(),
        ..Default::default()
    };
    let fields = wrong_fields(operator.tenants.provision_tenant(wrong).await);
    for field in ["request_id", "display_name", "slug", "cycle", "trial", "admin_email", "external_id"] {
        assert!(fields.iter().any(|f| f == field), "{field}: {fields:?}");
    }
    let plan = v1::ProvisionTenantRequest { plan: "gold".to_owned(), ..fresh() };
    assert_refused(operator.tenants.provision_tenant(plan).await, Code::InvalidArgument, "PLAN_UNKNOWN");
    let feature = v1::ProvisionTenantRequest { features: vec!["wings".to_owned()], ..fresh() };
    assert_refused(operator.tenants.provision_tenant(feature).await, Code::InvalidArgument, "FEATURE_UNKNOWN");
    let template = v1::ProvisionTenantRequest { template: "none".to_owned(), ..fresh() };
    assert_eq!(wrong_fields(operator.tenants.provision_tenant(template).await), ["template"]);
    let settings = Some(v1::Settings { time_zone: "Mars/Olympus".to_owned(), ..Default::default() });
    let settings = v1::ProvisionTenantRequest { settings, ..fresh() };
    assert_eq!(wrong_fields(operator.tenants.provision_tenant(settings).await), ["settings.time_zone"]);
    let person = t.person("ann").await;
    let by_user = t.with_token(&person.token).tenants.provision_tenant(fresh()).await;
    assert_refused(by_user, Code::PermissionDenied, "CALLER_KIND_REFUSED");
}

async fn a_template_fills_in_what_is_not_said(t: &Bed) {
    let t = Bed::of_product(t.engine, SCHOOLS).await;
    let mut operator = t.operator();
    let request = v1::ProvisionTenantRequest { template: "school".to_owned(), ..fresh() };
    let done = operator.tenants.provision_tenant(request).await.unwrap().into_inner();
    let tenant = done.tenant.unwrap();
    assert_eq!((tenant.plan.as_str(), tenant.status()), ("school", v1::TenantStatus::Trial));
    let named = |id: &str| v1::GetSettingsRequest { tenant: id.to_owned() };
    let settings =
        operator.tenants.get_settings(named(&tenant.tenant_id)).await.unwrap().into_inner().settings.unwrap();
    assert_eq!((settings.locale.as_str(), settings.time_zone.as_str()), ("en-US", "Europe/Berlin"));
    assert_eq!(settings.branding.unwrap().theme, "school");
    let list = v1::ListFeaturesRequest { tenant: tenant.tenant_id.clone() };
    let features = operator.tenants.list_features(list).await.unwrap().into_inner().features;
    let on: Vec<&str> = features.iter().filter(|f| f.enabled).map(|f| f.feature.as_str()).collect();
    assert_eq!(on, ["badges", "chat", "sso"]);
    // What is said outweighs the template.
    let trial = Some(prost_types::Duration { seconds: 0, nanos: 0 });
    let cycle = v1::BillingCycle::Year.into();
    let request = v1::ProvisionTenantRequest { template: "school".to_owned(), trial, cycle, ..fresh() };
    let done = operator.tenants.provision_tenant(request).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(done.status(), v1::TenantStatus::Active);
    let get = v1::GetSubscriptionRequest { tenant: done.tenant_id };
    let subscription = operator.tenants.get_subscription(get).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!((subscription.cycle(), subscription.price), (v1::BillingCycle::Year, 29000));
}

async fn a_pending_tenant_waits_for_an_operator(t: &Bed) {
    let request = v1::ProvisionTenantRequest { pending: true, ..fresh() };
    let mut operator = t.operator();
    let done = operator.tenants.provision_tenant(request.clone()).await.unwrap().into_inner();
    let tenant = done.tenant.unwrap();
    assert_eq!(tenant.status(), v1::TenantStatus::Pending);
    let login = v1::LoginRequest { email: request.admin_email, password: done.admin_password, ..Default::default() };
    let token = t.anonymous().auth.login(login).await.unwrap().into_inner().access_token.unwrap().token;
    let mut admin = t.with_token(&token);
    let usage = admin.usage.get_usage(v1::GetUsageRequest::default()).await;
    assert_refused(usage, Code::PermissionDenied, "TENANT_PENDING");
    admin.tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("it can be seen");
    let own = admin.tenants.activate_tenant(v1::ActivateTenantRequest::default()).await;
    assert_refused(own, Code::PermissionDenied, "TENANT_PENDING");
    let activate = v1::ActivateTenantRequest { tenant: tenant.tenant_id.clone(), ..Default::default() };
    operator.tenants.activate_tenant(activate).await.unwrap();
    admin.usage.get_usage(v1::GetUsageRequest::default()).await.expect("open");
}

async fn in_maintenance_only_operators_change_things(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut operator = t.operator();
    let flags =
        |on: bool| v1::SetTenantFlagsRequest { tenant: acme.id.clone(), maintenance: Some(on), ..Default::default() };
    let flagged = operator.tenants.set_tenant_flags(flags(true)).await.unwrap().into_inner().tenant.unwrap();
    assert!(flagged.maintenance && flagged.status() == v1::TenantStatus::Active);
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.get_usage(v1::GetUsageRequest::default()).await.expect("reads go on");
    let update = v1::UpdateTenantRequest { display_name: "New".to_owned(), ..Default::default() };
    let refused = owner.tenants.update_tenant(update.clone()).await;
    assert_refused(refused, Code::Unavailable, "TENANT_IN_MAINTENANCE");
    let by_operator = v1::UpdateTenantRequest { tenant: acme.id.clone(), ..update.clone() };
    operator.tenants.update_tenant(by_operator).await.expect("operators work on it");
    let none = v1::SetTenantFlagsRequest { tenant: acme.id.clone(), ..Default::default() };
    assert_eq!(wrong_fields(operator.tenants.set_tenant_flags(none).await), ["verified"]);
    operator.tenants.set_tenant_flags(flags(false)).await.unwrap();
    owner.tenants.update_tenant(update).await.expect("open again");
}

async fn an_ended_tenant_is_kept_or_deleted(t: &Bed) {
    let (kept, gone) = (t.tenant("kept").await, t.tenant("gone").await);
    let mut operator = t.operator();
    let end = |tenant: &crate::harness::Tenant, delete_data| v1::DeprovisionTenantRequest {
        tenant: tenant.id.clone(),
        confirm_slug: tenant.slug.clone(),
        delete_data,
        reason: "moved on".to_owned(),
        ..Default::default()
    };
    let wrong = v1::DeprovisionTenantRequest { confirm_slug: "other".to_owned(), ..end(&kept, false) };
    assert_eq!(wrong_fields(operator.tenants.deprovision_tenant(wrong).await), ["confirm_slug"]);
    let dry = v1::DeprovisionTenantRequest { validate_only: true, ..end(&kept, true) };
    let planned = operator.tenants.deprovision_tenant(dry).await.unwrap().into_inner();
    assert_eq!(planned.tenant.unwrap().status(), v1::TenantStatus::Deleted);
    t.with_token(&kept.owner.token).usage.get_usage(v1::GetUsageRequest::default()).await.expect("nothing was done");

    let done = operator.tenants.deprovision_tenant(end(&kept, false)).await.unwrap().into_inner();
    assert_eq!(done.tenant.unwrap().status(), v1::TenantStatus::Cancelled);
    let usage = t.with_token(&kept.owner.token).usage.get_usage(v1::GetUsageRequest::default()).await;
    assert_refused(usage, Code::PermissionDenied, "TENANT_CANCELLED");
    let done = operator.tenants.deprovision_tenant(end(&gone, true)).await.unwrap().into_inner();
    assert_eq!(done.tenant.unwrap().status(), v1::TenantStatus::Deleted);
    let again = operator.tenants.deprovision_tenant(end(&gone, true)).await;
    assert_refused(again, Code::FailedPrecondition, "WRONG_STATE");
}

async fn an_external_id_leads_to_its_tenant_alone(t: &Bed) {
    let id = unique("crm");
    let mut operator = t.operator();
    let request = v1::ProvisionTenantRequest { external_id: id.clone(), ..fresh() };
    let tenant = operator.tenants.provision_tenant(request).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.external_id, id);
    let second = v1::ProvisionTenantRequest { external_id: id.clone(), ..fresh() };
    let slug = second.slug.clone();
    assert_refused(operator.tenants.provision_tenant(second).await, Code::AlreadyExists, "EXTERNAL_ID_TAKEN");
    let slug = v1::CheckSlugRequest { slug };
    assert!(t.anonymous().tenants.check_slug(slug).await.unwrap().into_inner().available, "nothing is left of it");
    let lookup = v1::LookupExternalIdRequest { kind: Some(v1::lookup_external_id_request::Kind::TenantExternalId(id)) };
    let found = operator.tenants.lookup_external_id(lookup).await.unwrap().into_inner();
    assert_eq!(found.id, tenant.tenant_id);
}

async fn many_at_once_make_one(t: &Bed) {
    let request = v1::ProvisionTenantRequest { request_id: request_id(), ..fresh() };
    let calls = (0..8).map(|_| {
        let (mut operator, request) = (t.operator(), request.clone());
        async move { operator.tenants.provision_tenant(request).await }
    });
    let answers = futures::future::join_all(calls).await;
    let done: Vec<_> = answers.into_iter().filter_map(Result::ok).map(tonic::Response::into_inner).collect();
    assert!(!done.is_empty());
    assert!(done.iter().all(|one| *one == done[0]), "all answers are the first one");
    let id = &done[0].tenant.as_ref().unwrap().tenant_id;
    let members: Vec<(i64,)> = t.rows("select count(*) from membership where tenant_id = $1", id).await;
    assert_eq!(members[0].0, 1);
}
