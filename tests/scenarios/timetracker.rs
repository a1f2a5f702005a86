//! timetracker: time and invoices; without an owner, admins are the top.

use tenantry::rpc::v1;
use tonic::Code;

use super::{deleted_and_purged, limit, provisioned, seen};
use crate::harness::{Bed, assert_refused, on_both_engines};

on_both_engines! {
    an_organisation_lives_under_its_admins
}

async fn an_organisation_lives_under_its_admins(t: &Bed) {
    let t = &Bed::of_product(t.engine, include_str!("timetracker.toml")).await;
    let acme = t.tenant("acme").await;
    let mut admin = t.with_token(&acme.owner.token);
    assert_eq!(admin.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner().roles, ["admin"]);
    // Names of roles are an organisation's own: another one may mean something else by the same.
    let other = t.tenant("other").await;
    for (token, rank) in [(&acme.owner.token, 5), (&other.owner.token, 7)] {
        let role = v1::CreateRoleRequest { name: "bookkeeper".to_owned(), rank, ..Default::default() };
        t.with_token(token).members.create_role(role).await.unwrap();
    }
    // The last one of the top role can neither leave nor be demoted.
    let leave = admin.members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(leave, Code::FailedPrecondition, "LAST_OWNER");
    let demote = v1::UpdateMemberRoleRequest {
        user_id: acme.owner.id.clone(),
        roles: vec!["viewer".to_owned()],
        ..Default::default()
    };
    assert_refused(admin.members.update_member_role(demote).await, Code::FailedPrecondition, "LAST_OWNER");

    // User limits by tier: three on free, more on starter.
    let bob = t.member(&acme, "member").await;
    t.member(&acme, "viewer").await;
    let eve = t.person("eve").await;
    let add = v1::AddMemberRequest { email: eve.email, roles: vec!["viewer".to_owned()], ..Default::default() };
    let full = admin.members.add_member(add.clone()).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    // A suspended member holds no seat, and is suspended no longer than there is one.
    let suspend = v1::SuspendMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    admin.members.suspend_member(suspend).await.unwrap();
    admin.members.add_member(add).await.expect("the seat is free");
    let back = v1::ReactivateMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    let full = admin.members.reactivate_member(back.clone()).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    let plan = v1::ChangePlanRequest { tenant: acme.id.clone(), plan: "starter".to_owned(), ..Default::default() };
    t.operator().tenants.change_plan(plan).await.unwrap();
    admin.members.reactivate_member(back).await.expect("ten seats");
    let seats = limit(t, &acme.id, "members").await;
    assert_eq!((seats.limit, seats.used, seats.remaining), (Some(10), Some(4), Some(6)));
    let projects = limit(t, &acme.id, "projects").await;
    assert_eq!((projects.kind(), projects.limit, projects.used), (v1::MetricKind::Gauge, Some(20), Some(0)));

    // A smaller plan shows what would be exceeded first.
    let smaller = v1::ChangePlanRequest { tenant: acme.id.clone(), plan: "free".to_owned(), ..Default::default() };
    let dry = v1::ChangePlanRequest { validate_only: true, ..smaller.clone() };
    let told = t.operator().tenants.change_plan(dry).await.unwrap().into_inner();
    assert_eq!((told.exceeded[0].metric.as_str(), told.exceeded[0].used), ("members", 4));
    let refused = t.operator().tenants.change_plan(smaller).await;
    assert_refused(refused, Code::FailedPrecondition, "PLAN_EXCEEDED");

    // Contact and billing details; time zone, currency, date format; logo and colour; defaults of the product.
    let update = v1::UpdateSettingsRequest {
        settings: Some(v1::Settings {
            contact: Some(v1::Contact { email: "office@acme.example".to_owned(), ..Default::default() }),
            billing: Some(v1::BillingDetails { tax_id: "DE123".to_owned(), ..Default::default() }),
            branding: Some(v1::Branding { logo_url: "https://acme.example/logo.png".to_owned(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    admin.tenants.update_settings(update).await.unwrap();
    let settings = admin.tenants.get_settings(v1::GetSettingsRequest::default()).await.unwrap().into_inner();
    let settings = settings.settings.unwrap();
    assert_eq!((settings.time_zone.as_str(), settings.date_format.as_str()), ("Europe/Berlin", "DD.MM.YYYY"));
    let branding = settings.branding.unwrap();
    assert_eq!(
        (branding.primary_color.as_str(), branding.logo_url.as_str()),
        ("#336699", "https://acme.example/logo.png")
    );

    // Existing data goes to a default organisation, made from a template.
    let template = v1::ProvisionTenantRequest { template: "default_organisation".to_owned(), ..Default::default() };
    let old = provisioned(t, template).await;
    assert_eq!(seen(t, &old.id).await.plan, "professional");
    // A tenant reads nothing of another.
    let stranger = admin.tenants.get_tenant(v1::GetTenantRequest { tenant: old.id.clone() }).await;
    assert_refused(stranger, Code::InvalidArgument, "TENANT_CONFLICT");
    deleted_and_purged(t, &old).await;
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);
}
