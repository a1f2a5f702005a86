//! mercura: sales quotes, sold by seat.

use tenantry::rpc::v1;
use tonic::Code;

use super::{billed, days_pass, seen, subscription};
use crate::harness::{Bed, PASSWORD, assert_refused, on_both_engines, unique};

on_both_engines! {
    an_organisation_lives_from_sign_up_over_trial_and_debt_to_its_end
}

async fn an_organisation_lives_from_sign_up_over_trial_and_debt_to_its_end(t: &Bed) {
    let t = &Bed::of_product(t.engine, include_str!("mercura.toml")).await;
    // Sign-up creates the organisation with its owner and returns a token, in one call.
    let slug = unique("acme");
    let sign_up = v1::SignUpRequest {
        email: format!("{slug}@example.com"),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant: Some(v1::NewTenant { display_name: "Acme".to_owned(), slug: slug.clone() }),
        ..Default::default()
    };
    let done = t.anonymous().auth.sign_up(sign_up).await.unwrap().into_inner();
    let tenant = done.tenant.unwrap();
    assert_eq!((tenant.status(), tenant.plan.as_str()), (v1::TenantStatus::Trial, "trial"));
    let owner = crate::harness::Person {
        id: done.user.unwrap().user_id,
        email: format!("{slug}@example.com"),
        token: done.access_token.unwrap().token,
        refresh: done.refresh_token.unwrap().token,
    };
    let acme = crate::harness::Tenant { id: tenant.tenant_id, slug, owner };

    // Seats are enforced: three on trial.
    t.member(&acme, "sales_rep").await;
    t.member(&acme, "viewer").await;
    let dan = t.person("dan").await;
    let add =
        v1::AddMemberRequest { email: dan.email.clone(), roles: vec!["manager".to_owned()], ..Default::default() };
    let full = t.with_token(&acme.owner.token).members.add_member(add.clone()).await;
    assert_refused(full, Code::ResourceExhausted, "SEATS_EXHAUSTED");

    // The trial ends by itself; choosing a plan does not open it, paying does.
    days_pass(t, 15).await;
    let over = seen(t, &acme.id).await;
    assert_eq!((over.status(), over.suspend_cause()), (v1::TenantStatus::Suspended, v1::SuspendCause::TrialEnded));
    let owner = t.login(&acme.owner, &acme.id).await;
    let mut as_owner = t.with_token(&owner.token);
    let plan = |plan: &str| v1::ChangePlanRequest { plan: plan.to_owned(), ..Default::default() };
    as_owner.tenants.change_plan(plan("team")).await.unwrap();
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Suspended);
    assert!(billed(t, &acme.id, v1::BillingEventKind::Paid).await.applied);
    let open = seen(t, &acme.id).await;
    assert_eq!((open.status(), open.plan.as_str()), (v1::TenantStatus::Active, "team"));
    as_owner.members.add_member(add).await.expect("ten seats now");
    let linked = subscription(t, &acme.id).await;
    assert_eq!(linked.provider_ids.as_ref().unwrap().customer, "cus_1");
    assert_eq!((linked.price, linked.currency.as_str(), linked.cycle()), (4900, "EUR", v1::BillingCycle::Month));

    // Past due leaves the tenant as it is until grace ends.
    days_pass(t, 31).await;
    assert_eq!(subscription(t, &acme.id).await.status(), v1::SubscriptionStatus::PastDue);
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);
    days_pass(t, 7).await;
    let closed = seen(t, &acme.id).await;
    assert_eq!((closed.status(), closed.suspend_cause()), (v1::TenantStatus::Suspended, v1::SuspendCause::Billing));
    billed(t, &acme.id, v1::BillingEventKind::Paid).await;
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);

    // Cancelled at the period's end: active until then.
    let owner = t.login(&acme.owner, &acme.id).await;
    let mut as_owner = t.with_token(&owner.token);
    let cancel = v1::CancelSubscriptionRequest { when: v1::EffectiveWhen::PeriodEnd.into(), ..Default::default() };
    as_owner.tenants.cancel_subscription(cancel).await.unwrap();
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);
    days_pass(t, 32).await;
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Cancelled);
    let owner = t.login(&acme.owner, &acme.id).await;
    let mut as_owner = t.with_token(&owner.token);
    let closed = as_owner.usage.get_usage(v1::GetUsageRequest::default()).await;
    assert_refused(closed, Code::PermissionDenied, "TENANT_CANCELLED");
    as_owner.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await.expect("comes back");
    billed(t, &acme.id, v1::BillingEventKind::Paid).await;
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);
}
