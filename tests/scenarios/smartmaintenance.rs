//! smartmaintenance: assets and service requests, by subscription.

use tenantry::rpc::v1;
use tonic::Code;

use super::{billed, days_pass, deleted_and_purged, limit, seen, subscription};
use crate::harness::{Bed, amounts, assert_refused, on_both_engines};

on_both_engines! {
    a_customer_lives_by_subscription
}

async fn a_customer_lives_by_subscription(t: &Bed) {
    let t = &Bed::of_product(t.engine, include_str!("smartmaintenance.toml")).await;
    // The price list, cheapest first.
    let plans = t.anonymous().tenants.list_plans(v1::ListPlansRequest {}).await.unwrap().into_inner().plans;
    let names: Vec<&str> = plans.iter().map(|plan| plan.plan.as_str()).collect();
    assert_eq!(names, ["free", "basic", "premium", "enterprise"]);
    assert_eq!(plans[1].prices.iter().map(|price| price.amount).collect::<Vec<_>>(), [2900, 29000]);

    // Found by subdomain; reserved names refused; availability checked.
    let acme = t.tenant("acme").await;
    let by_host = |host: String| v1::ResolveTenantRequest { by: Some(v1::resolve_tenant_request::By::Host(host)) };
    let found = t.anonymous().tenants.resolve_tenant(by_host(format!("{}.tenantry.test", acme.slug))).await.unwrap();
    assert_eq!(found.into_inner().tenant_id, acme.id);
    let reserved = v1::CheckSlugRequest { slug: "admin".to_owned() };
    assert!(!t.anonymous().tenants.check_slug(reserved).await.unwrap().into_inner().available);

    // On trial: three users, ten assets, fifty requests a month.
    let trial = subscription(t, &acme.id).await;
    assert_eq!(trial.status(), v1::SubscriptionStatus::Trialing);
    for (metric, allowed) in [("members", 3), ("assets", 10), ("requests", 50)] {
        assert_eq!(limit(t, &acme.id, metric).await.limit, Some(allowed), "{metric}");
    }
    let consume = |n| v1::ConsumeRequest { amounts: amounts(&[("requests", n)]), ..Default::default() };
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.consume(consume(50)).await.unwrap();
    assert_refused(owner.usage.consume(consume(1)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");

    // Annual, with the provider's ids; days until renewal; the limits at once.
    let change = v1::ChangePlanRequest {
        tenant: acme.id.clone(),
        plan: "basic".to_owned(),
        cycle: v1::BillingCycle::Year.into(),
        ..Default::default()
    };
    let changed = t.operator().tenants.change_plan(change).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!((changed.cycle(), changed.price), (v1::BillingCycle::Year, 29000));
    assert!((365..=366).contains(&changed.days_until_renewal), "{changed:?}");
    owner.usage.consume(consume(450)).await.expect("five hundred now");
    billed(t, &acme.id, v1::BillingEventKind::Paid).await;

    // Paused: suspended, and nothing of what is paid is lost.
    let before = subscription(t, &acme.id).await.period_end_time.unwrap();
    owner.tenants.pause_subscription(v1::PauseSubscriptionRequest::default()).await.unwrap();
    let paused = seen(t, &acme.id).await;
    assert_eq!((paused.status(), paused.suspend_cause()), (v1::TenantStatus::Suspended, v1::SuspendCause::Paused));
    days_pass(t, 40).await;
    let signed_in = t.login(&acme.owner, &acme.id).await;
    let mut owner = t.with_token(&signed_in.token);
    let closed = owner.usage.get_usage(v1::GetUsageRequest::default()).await;
    assert_refused(closed, Code::PermissionDenied, "TENANT_SUSPENDED");
    owner.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await.unwrap();
    let after = subscription(t, &acme.id).await;
    let later = after.period_end_time.unwrap().seconds - before.seconds;
    assert!((40 * 86_400..40 * 86_400 + 60).contains(&later), "{later}");

    // The year passes unpaid: past due, then suspended with a reason, then renewed.
    days_pass(t, 367).await;
    assert_eq!(subscription(t, &acme.id).await.status(), v1::SubscriptionStatus::PastDue);
    days_pass(t, 8).await;
    let closed = seen(t, &acme.id).await;
    assert_eq!((closed.suspend_reason.as_str(), closed.suspend_cause()), ("billing", v1::SuspendCause::Billing));
    let renew = v1::RenewSubscriptionRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.renew_subscription(renew).await.unwrap();
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Active);

    // Cancelled now; the end.
    let cancel = v1::CancelSubscriptionRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.cancel_subscription(cancel).await.unwrap();
    assert_eq!(seen(t, &acme.id).await.status(), v1::TenantStatus::Cancelled);
    deleted_and_purged(t, &acme).await;
}
