//! Plans and subscriptions: trials, changes, payments, ends, and what passes with time alone.

use chrono::{DateTime, Datelike as _, TimeDelta};
use serde_json::Value;
use tenantry::rpc::v1;
use tenantry::time::Clock as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{
    Bed, Clients, Engine, Tenant, amounts, assert_refused, on_both_engines, request_id, unique, wrong_fields,
};

on_both_engines! {
    who_may_tell_of_payments
    what_a_billing_event_must_say
    a_trial_ends_by_time_alone_also_while_no_server_runs
    a_trial_ends_into_the_plan_that_it_names
    an_upgrade_holds_with_its_answer
    a_downgrade_is_refused_forced_or_waits
    a_subscription_ends_now_or_with_its_period
    a_pause_keeps_what_was_left
    an_unpaid_tenant_works_through_its_grace_and_opens_with_a_payment
    an_event_counts_once
    parallel_tellings_of_an_event_count_once
    months_end_where_they_began
    owners_choose_what_is_self_service
    every_change_of_a_subscription_is_in_the_audit_log
}

const PRODUCT: &str = r#"
default_plan = "free"
[metrics.quizzes]
unit = "quizzes"
[features]
export = "Export."
logo = "A logo of one's own."
[plans.free]
seats = 3
features = ["logo"]
limits = { quizzes = 10 }
[plans.pro]
currency = "EUR"
price = { month = 2900, year = 29000 }
grace_days = 5
features = ["export"]
limits = { quizzes = 100 }
[plans.taste]
self_service = false
trial = { days = 14, then = "suspend" }
[plans.starter]
currency = "EUR"
price = { month = 900 }
trial = { days = 7, then = { downgrade = "free" } }
[plans.secret]
self_service = false
limits = { quizzes = 1000 }
"#;

/// A server of its own for this product, whose clock the test may move.
async fn product(t: &Bed) -> Bed {
    Bed::of_product(t.engine, PRODUCT).await
}

/// Signs the owner in again: tokens last minutes, and days pass here.
async fn owner(t: &Bed, tenant: &Tenant) -> Clients {
    t.with_token(&t.login(&tenant.owner, &tenant.id).await.token)
}

/// A tenant on a plan, made by the operator.
async fn on_plan(t: &Bed, plan: &str) -> Tenant {
    let (slug, person) = (unique("acme"), t.person("owner").await);
    let request = v1::CreateTenantRequest {
        display_name: slug.clone(),
        slug,
        plan: plan.to_owned(),
        owner_email: person.email.clone(),
        ..Default::default()
    };
    let made = t.operator().tenants.create_tenant(request).await.expect("is made").into_inner().tenant.unwrap();
    let owner = t.login(&person, &made.tenant_id).await;
    Tenant { id: made.tenant_id, slug: made.slug, owner }
}

fn change(plan: &str) -> v1::ChangePlanRequest {
    v1::ChangePlanRequest { plan: plan.to_owned(), ..Default::default() }
}

fn told(tenant: &Tenant, event: &str, kind: v1::BillingEventKind) -> v1::RecordBillingEventRequest {
    v1::RecordBillingEventRequest {
        tenant: tenant.id.clone(),
        provider: "stripe".to_owned(),
        event_id: event.to_owned(),
        kind: kind.into(),
        amount: 2900,
        currency: "EUR".to_owned(),
        ..Default::default()
    }
}

async fn bill(t: &Bed, request: v1::RecordBillingEventRequest) -> (v1::Subscription, bool) {
    let done = t.operator().tenants.record_billing_event(request).await.expect("is taken").into_inner();
    (done.subscription.expect("a subscription"), done.applied)
}

async fn subscription(t: &Bed, tenant: &Tenant) -> v1::Subscription {
    let get = v1::GetSubscriptionRequest { tenant: tenant.id.clone() };
    let found = t.operator().tenants.get_subscription(get).await.expect("is there").into_inner();
    found.subscription.expect("a subscription")
}

async fn seen(t: &Bed, tenant: &Tenant) -> v1::Tenant {
    let get = v1::GetTenantRequest { tenant: tenant.id.clone() };
    t.operator().tenants.get_tenant(get).await.expect("is there").into_inner().tenant.expect("a tenant")
}

fn quizzes(amount: i64) -> v1::ConsumeRequest {
    v1::ConsumeRequest { amounts: amounts(&[("quizzes", amount)]), ..Default::default() }
}

async fn a_trial_ends_by_time_alone_also_while_no_server_runs(t: &Bed) {
    let t = product(t).await;
    let acme = on_plan(&t, "taste").await;
    assert_eq!(seen(&t, &acme).await.status(), v1::TenantStatus::Trial);
    owner(&t, &acme).await.usage.consume(quizzes(1)).await.expect("works on trial");
    t.clock.advance(TimeDelta::days(14) - TimeDelta::minutes(2));
    let mut clients = owner(&t, &acme).await;
    clients.usage.consume(quizzes(1)).await.expect("works to the end");
    // No server runs when it ends; the first request is refused all the same.
    let t = t.restart_after(TimeDelta::minutes(3)).await;
    let mut clients = owner(&t, &acme).await;
    let refused = clients.usage.consume(quizzes(1)).await.expect_err("is over");
    assert_eq!(refused.get_details_error_info().unwrap().metadata["suspend_reason"], "trial ended");
    assert_refused::<v1::ConsumeResponse>(Err(refused), Code::PermissionDenied, "TENANT_SUSPENDED");
    let over = seen(&t, &acme).await;
    assert_eq!((over.status(), over.suspend_cause()), (v1::TenantStatus::Suspended, v1::SuspendCause::TrialEnded));
    // Cancelling and resuming is no way round it; choosing a plan is.
    clients.tenants.cancel_subscription(v1::CancelSubscriptionRequest::default()).await.unwrap();
    clients.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await.unwrap();
    let refused = clients.usage.consume(quizzes(1)).await;
    assert_refused(refused, Code::PermissionDenied, "TENANT_SUSPENDED");
    clients.tenants.change_plan(change("free")).await.unwrap();
    clients.usage.consume(quizzes(1)).await.expect("works again");
}

async fn a_trial_ends_into_the_plan_that_it_names(t: &Bed) {
    let t = product(t).await;
    let acme = on_plan(&t, "starter").await;
    let s = subscription(&t, &acme).await;
    assert_eq!((s.plan.as_str(), s.status()), ("starter", v1::SubscriptionStatus::Trialing));
    t.clock.advance(TimeDelta::days(8));
    let s = subscription(&t, &acme).await;
    assert_eq!((s.plan.as_str(), s.status(), s.price), ("free", v1::SubscriptionStatus::Active, 0));
    let mut clients = owner(&t, &acme).await;
    clients.usage.consume(quizzes(10)).await.expect("the free plan's ten");
    assert_refused(clients.usage.consume(quizzes(1)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

async fn an_upgrade_holds_with_its_answer(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    let mut clients = owner(&t, &acme).await;
    clients.usage.consume(quizzes(10)).await.unwrap();
    assert_refused(clients.usage.consume(quizzes(1)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    let sibling = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    if let Some(sibling) = &sibling {
        let mut elsewhere = sibling.with_token(&acme.owner.token);
        assert_refused(elsewhere.usage.consume(quizzes(1)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    }
    let done = clients.tenants.change_plan(change("pro")).await.unwrap().into_inner();
    assert_eq!((done.lost_features, done.gained_features), (vec!["logo".to_owned()], vec!["export".to_owned()]));
    let s = done.subscription.unwrap();
    // An owner does not see to the payment: past due until it is there.
    assert_eq!((s.plan.as_str(), s.status(), s.price), ("pro", v1::SubscriptionStatus::PastDue, 2900));
    assert!((28..=31).contains(&s.days_until_renewal), "{}", s.days_until_renewal);
    if let Some(sibling) = &sibling {
        sibling.with_token(&acme.owner.token).usage.consume(quizzes(1)).await.expect("holds on another server at once");
    }
    clients.usage.consume(quizzes(20)).await.expect("holds at once");
    let limits = clients.tenants.list_limits(v1::ListLimitsRequest::default()).await.unwrap().into_inner().limits;
    assert_eq!(limits.iter().find(|l| l.metric == "quizzes").unwrap().limit, Some(100));
    if let Some(sibling) = sibling {
        sibling.stop().await;
    }
}

async fn a_downgrade_is_refused_forced_or_waits(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    let mut operator = t.operator();
    let to_pro = v1::ChangePlanRequest { tenant: acme.id.clone(), ..change("pro") };
    operator.tenants.change_plan(to_pro).await.unwrap();
    bill(&t, told(&acme, &unique("evt"), v1::BillingEventKind::Paid)).await;
    for _ in 0..3 {
        t.member(&acme, "member").await;
    }
    let mut clients = owner(&t, &acme).await;
    clients.usage.consume(quizzes(40)).await.unwrap();
    let before = subscription(&t, &acme).await;
    // What would be is said, and nothing changes.
    let only = v1::ChangePlanRequest { validate_only: true, request_id: request_id(), ..change("free") };
    let shown = clients.tenants.change_plan(only).await.unwrap().into_inner();
    let over: Vec<_> = shown.exceeded.iter().map(|e| (e.metric.as_str(), e.used, e.limit)).collect();
    assert_eq!(over, [("quizzes", 40, 10), ("members", 4, 3)]);
    assert_eq!(shown.subscription.unwrap().plan, "free");
    assert_eq!(subscription(&t, &acme).await, before);
    let refused = clients.tenants.change_plan(change("free")).await.expect_err("exceeds");
    let quota = refused.get_details_quota_failure().unwrap().violations;
    assert_eq!(quota.iter().map(|v| v.subject.as_str()).collect::<Vec<_>>(), ["quizzes", "members"]);
    assert_refused::<v1::ChangePlanResponse>(Err(refused), Code::FailedPrecondition, "PLAN_EXCEEDED");
    // An override that holds counts instead of the plan's number.
    t.set_limit(&acme, "quizzes", v1::set_limit_override_request::Value::Limit(50)).await;
    let only = v1::ChangePlanRequest { validate_only: true, ..change("free") };
    let shown = clients.tenants.change_plan(only).await.unwrap().into_inner();
    assert_eq!(shown.exceeded.iter().map(|e| e.metric.as_str()).collect::<Vec<_>>(), ["members"]);
    // At the period's end: the plan stays until then.
    let later = v1::ChangePlanRequest {
        when: v1::EffectiveWhen::PeriodEnd.into(),
        allow_exceeding: true,
        etag: before.etag.clone(),
        ..change("free")
    };
    let stale = v1::ChangePlanRequest { etag: "\"v1\"".to_owned(), ..later.clone() };
    assert_refused(clients.tenants.change_plan(stale.clone()).await, Code::Aborted, "ETAG_MISMATCH");
    let only = v1::ChangePlanRequest { validate_only: true, ..stale };
    assert_refused(clients.tenants.change_plan(only).await, Code::Aborted, "ETAG_MISMATCH");
    let s = clients.tenants.change_plan(later.clone()).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!((s.plan.as_str(), s.next_plan.as_str()), ("pro", "free"));
    // Taken back, and asked for again.
    let back = v1::ChangePlanRequest { plan: "pro".to_owned(), etag: String::new(), ..later.clone() };
    let s = clients.tenants.change_plan(back).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!(s.next_plan, "");
    let again = v1::ChangePlanRequest { etag: String::new(), ..later };
    clients.tenants.change_plan(again).await.unwrap();
    t.clock.advance(TimeDelta::days(32));
    let s = subscription(&t, &acme).await;
    assert_eq!((s.plan.as_str(), s.status()), ("free", v1::SubscriptionStatus::Active));
    // At once, although more is in use.
    let mut clients = owner(&t, &acme).await;
    clients.tenants.change_plan(change("pro")).await.unwrap();
    let forced = v1::ChangePlanRequest { allow_exceeding: true, ..change("free") };
    let forced = clients.tenants.change_plan(forced).await.unwrap().into_inner();
    assert_eq!(forced.subscription.unwrap().plan, "free");
    assert_eq!(forced.exceeded.len(), 1, "seats");
}

async fn a_subscription_ends_now_or_with_its_period(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    let to_pro = v1::ChangePlanRequest { tenant: acme.id.clone(), ..change("pro") };
    t.operator().tenants.change_plan(to_pro).await.unwrap();
    bill(&t, told(&acme, &unique("evt"), v1::BillingEventKind::Paid)).await;
    let mut clients = owner(&t, &acme).await;
    let nothing = clients.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await;
    assert_refused(nothing, Code::FailedPrecondition, "WRONG_STATE");
    let at_end = v1::CancelSubscriptionRequest {
        when: v1::EffectiveWhen::PeriodEnd.into(),
        reason: "too dear".to_owned(),
        ..Default::default()
    };
    let s = clients.tenants.cancel_subscription(at_end.clone()).await.unwrap().into_inner().subscription.unwrap();
    assert!(s.cancel_at_period_end);
    clients.usage.consume(quizzes(1)).await.expect("works to the period's end");
    clients.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await.expect("takes it back");
    clients.tenants.cancel_subscription(at_end).await.unwrap();
    t.clock.advance(TimeDelta::days(32));
    assert_eq!(seen(&t, &acme).await.status(), v1::TenantStatus::Cancelled);
    let mut clients = owner(&t, &acme).await;
    assert_refused(clients.usage.consume(quizzes(1)).await, Code::PermissionDenied, "TENANT_CANCELLED");
    let twice = clients.tenants.cancel_subscription(v1::CancelSubscriptionRequest::default()).await;
    assert_refused(twice, Code::FailedPrecondition, "WRONG_STATE");
    let renew = v1::RenewSubscriptionRequest { tenant: acme.id.clone(), ..Default::default() };
    assert_refused(t.operator().tenants.renew_subscription(renew).await, Code::FailedPrecondition, "WRONG_STATE");
    // Resumed, nothing is paid: past due, with the grace that counts from the end.
    let back = clients.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await.unwrap();
    assert_eq!(back.into_inner().subscription.unwrap().status(), v1::SubscriptionStatus::PastDue);
    // Now: at once.
    let now = clients.tenants.cancel_subscription(v1::CancelSubscriptionRequest::default()).await.unwrap();
    assert_eq!(now.into_inner().subscription.unwrap().status(), v1::SubscriptionStatus::Cancelled);
    assert_refused(clients.usage.consume(quizzes(1)).await, Code::PermissionDenied, "TENANT_CANCELLED");
}

async fn a_pause_keeps_what_was_left(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    let to_pro = v1::ChangePlanRequest { tenant: acme.id.clone(), ..change("pro") };
    t.operator().tenants.change_plan(to_pro).await.unwrap();
    bill(&t, told(&acme, &unique("evt"), v1::BillingEventKind::Paid)).await;
    t.clock.advance(TimeDelta::days(10));
    let mut clients = owner(&t, &acme).await;
    let left = subscription(&t, &acme).await.days_until_renewal;
    let pause = v1::PauseSubscriptionRequest::default();
    clients.tenants.pause_subscription(pause.clone()).await.unwrap();
    let refused = clients.usage.consume(quizzes(1)).await.expect_err("stands still");
    assert_eq!(refused.get_details_error_info().unwrap().metadata["suspend_reason"], "paused");
    let twice = clients.tenants.pause_subscription(pause).await;
    assert_refused(twice, Code::FailedPrecondition, "WRONG_STATE");
    let meanwhile = clients.tenants.change_plan(change("free")).await;
    assert_refused(meanwhile, Code::FailedPrecondition, "WRONG_STATE");
    t.clock.advance(TimeDelta::days(100));
    assert_eq!(seen(&t, &acme).await.suspend_cause(), v1::SuspendCause::Paused);
    let mut clients = owner(&t, &acme).await;
    let back = clients.tenants.resume_subscription(v1::ResumeSubscriptionRequest::default()).await.unwrap();
    let s = back.into_inner().subscription.unwrap();
    assert!((s.days_until_renewal - left).abs() <= 1, "{} of {left}", s.days_until_renewal);
    clients.usage.consume(quizzes(1)).await.expect("goes on");
    t.clock.advance(TimeDelta::days(i64::from(left) + 1));
    assert_eq!(subscription(&t, &acme).await.status(), v1::SubscriptionStatus::PastDue);
}

async fn an_unpaid_tenant_works_through_its_grace_and_opens_with_a_payment(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    owner(&t, &acme).await.tenants.change_plan(change("pro")).await.unwrap();
    assert_eq!(seen(&t, &acme).await.status(), v1::TenantStatus::Active);
    t.clock.advance(TimeDelta::days(4));
    owner(&t, &acme).await.usage.consume(quizzes(1)).await.expect("works within its grace");
    t.clock.advance(TimeDelta::days(1) + TimeDelta::minutes(1));
    let mut clients = owner(&t, &acme).await;
    let refused = clients.usage.consume(quizzes(1)).await.expect_err("grace is over");
    assert_eq!(refused.get_details_error_info().unwrap().metadata["suspend_reason"], "billing");
    assert_eq!(seen(&t, &acme).await.suspend_cause(), v1::SuspendCause::Billing);
    // To and fro between plans gains nothing.
    clients.tenants.change_plan(change("free")).await.unwrap();
    clients.usage.consume(quizzes(1)).await.expect("the free plan is free");
    clients.tenants.change_plan(change("pro")).await.unwrap();
    assert_refused(clients.usage.consume(quizzes(1)).await, Code::PermissionDenied, "TENANT_SUSPENDED");
    let (s, applied) = bill(&t, told(&acme, &unique("evt"), v1::BillingEventKind::Paid)).await;
    assert!(applied && s.grace_end_time.is_none());
    assert_eq!((s.status(), s.paid_until_time), (v1::SubscriptionStatus::Active, s.period_end_time));
    clients.usage.consume(quizzes(1)).await.expect("works again");
    // Given back: past due with a grace of its own, and one more period by hand.
    let (s, _) = bill(&t, told(&acme, &unique("evt"), v1::BillingEventKind::Refunded)).await;
    assert_eq!(s.status(), v1::SubscriptionStatus::PastDue);
    let renew = v1::RenewSubscriptionRequest { tenant: acme.id.clone(), ..Default::default() };
    let s = t.operator().tenants.renew_subscription(renew).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!(s.status(), v1::SubscriptionStatus::Active);
    // Failed: what is paid is had first, then the grace.
    let paid = s.paid_until_time.unwrap().seconds;
    let (s, _) = bill(&t, told(&acme, &unique("evt"), v1::BillingEventKind::Failed)).await;
    assert_eq!(s.status(), v1::SubscriptionStatus::PastDue);
    assert_eq!(s.grace_end_time.unwrap().seconds, paid + 5 * 86_400);
}

async fn an_event_counts_once(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    let to_pro = v1::ChangePlanRequest { tenant: acme.id.clone(), ..change("pro") };
    t.operator().tenants.change_plan(to_pro).await.unwrap();
    let event = v1::RecordBillingEventRequest {
        provider_ids: Some(v1::ProviderIds { customer: "cus_1".to_owned(), ..Default::default() }),
        ..told(&acme, "evt_1", v1::BillingEventKind::Paid)
    };
    let (first, applied) = bill(&t, event.clone()).await;
    assert!(applied);
    let (again, applied) = bill(&t, event.clone()).await;
    assert!(!applied);
    assert_eq!(again, first);
    let other = v1::RecordBillingEventRequest { amount: 1, ..event.clone() };
    let other = t.operator().tenants.record_billing_event(other).await;
    assert_refused(other, Code::InvalidArgument, "BILLING_EVENT_REUSED");
    // Of another provider it is another event; ids are merged.
    let elsewhere = v1::RecordBillingEventRequest {
        provider: "paddle".to_owned(),
        provider_ids: Some(v1::ProviderIds { subscription: "sub_1".to_owned(), ..Default::default() }),
        ..event
    };
    let (second, applied) = bill(&t, elsewhere).await;
    assert!(applied && second.paid_until_time.unwrap().seconds > first.paid_until_time.unwrap().seconds);
    let ids = second.provider_ids.clone().unwrap();
    assert_eq!((ids.customer.as_str(), ids.subscription.as_str()), ("cus_1", "sub_1"));
    // An older one is kept, and changes nothing; told again neither.
    let old = v1::RecordBillingEventRequest {
        event_time: Some(prost_types::Timestamp { seconds: t.clock.now().seconds() - 3600, nanos: 0 }),
        ..told(&acme, "evt_0", v1::BillingEventKind::Failed)
    };
    for _ in 0..2 {
        let (s, applied) = bill(&t, old.clone()).await;
        assert!(!applied);
        assert_eq!(s, second);
    }
    // Of a deleted tenant it is recorded as well.
    let delete = v1::DeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.delete_tenant(delete).await.unwrap();
    let (s, applied) = bill(&t, told(&acme, "evt_9", v1::BillingEventKind::Refunded)).await;
    assert!(applied);
    assert_eq!(s.status(), v1::SubscriptionStatus::PastDue);
}

async fn parallel_tellings_of_an_event_count_once(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    let to_pro = v1::ChangePlanRequest { tenant: acme.id.clone(), ..change("pro") };
    t.operator().tenants.change_plan(to_pro).await.unwrap();
    let event = told(&acme, "evt_1", v1::BillingEventKind::Paid);
    let tellings = (0..8).map(|_| {
        let (mut operator, event) = (t.operator(), event.clone());
        tokio::spawn(async move { operator.tenants.record_billing_event(event).await })
    });
    let mut applied = 0;
    for telling in tellings.collect::<Vec<_>>() {
        applied += i32::from(telling.await.unwrap().expect("is taken").into_inner().applied);
    }
    assert_eq!(applied, 1);
    let s = subscription(&t, &acme).await;
    assert_eq!(s.paid_until_time, s.period_end_time, "one period is paid");
}

async fn months_end_where_they_began(t: &Bed) {
    let t = product(t).await;
    let day = |at: Option<prost_types::Timestamp>| {
        DateTime::from_timestamp(at.expect("a time").seconds, 0).expect("a time").date_naive()
    };
    // On to a 31st: there is one within 62 days.
    while t.clock.now().utc().day() != 31 {
        t.clock.advance(TimeDelta::days(1));
    }
    let acme = t.tenant("acme").await;
    let to_pro = v1::ChangePlanRequest { tenant: acme.id.clone(), ..change("pro") };
    t.operator().tenants.change_plan(to_pro).await.unwrap();
    for _ in 0..14 {
        let renew = v1::RenewSubscriptionRequest { tenant: acme.id.clone(), ..Default::default() };
        t.operator().tenants.renew_subscription(renew).await.unwrap();
    }
    for _ in 0..14 {
        let s = subscription(&t, &acme).await;
        let end = day(s.period_end_time);
        let last = (end + chrono::Days::new(1)).day() == 1;
        assert!(end.day() == 31 || last, "{end} is neither the 31st nor a shorter month's last day");
        assert!((28..=31).contains(&(end - day(s.period_start_time)).num_days()));
        assert_eq!(s.status(), v1::SubscriptionStatus::Active);
        let left = s.period_end_time.unwrap().seconds - t.clock.now().seconds();
        t.clock.advance(TimeDelta::seconds(left + 1));
    }
    // What was paid is over, to the day.
    assert_eq!(subscription(&t, &acme).await.status(), v1::SubscriptionStatus::PastDue);
}

async fn owners_choose_what_is_self_service(t: &Bed) {
    let t = product(t).await;
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let mut clients = owner(&t, &acme).await;
    for plan in ["secret", "nowhere"] {
        assert_refused(clients.tenants.change_plan(change(plan)).await, Code::InvalidArgument, "PLAN_UNKNOWN");
    }
    let refused = t.with_token(&admin.token).tenants.change_plan(change("pro")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_eq!(wrong_fields(clients.tenants.change_plan(change("No Plan")).await), ["plan"]);
    let yearly = v1::ChangePlanRequest { cycle: v1::BillingCycle::Year.into(), ..change("starter") };
    assert_eq!(wrong_fields(clients.tenants.change_plan(yearly).await), ["cycle"]);
    let secret = v1::ChangePlanRequest { tenant: acme.id.clone(), ..change("secret") };
    t.operator().tenants.change_plan(secret).await.expect("the platform chooses it");
    clients.usage.consume(quizzes(500)).await.expect("and it holds");
}

async fn who_may_tell_of_payments(t: &Bed) {
    let acme = t.tenant("acme").await;
    let event = || told(&acme, &unique("evt"), v1::BillingEventKind::Paid);
    let refused = t.with_token(&acme.owner.token).tenants.record_billing_event(event()).await;
    assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let renew = v1::RenewSubscriptionRequest::default();
    let refused = t.with_token(&acme.owner.token).tenants.renew_subscription(renew).await;
    assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let narrow = t.service_key(&["billing.manage", "billing.read"]).await;
    let refused = t.with_key(&narrow).tenants.record_billing_event(event()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let wide = t.service_key(&["billing.record"]).await;
    t.with_key(&wide).tenants.record_billing_event(event()).await.expect("may");
}

async fn what_a_billing_event_must_say(t: &Bed) {
    let acme = t.tenant("acme").await;
    let far = |days: i64| Some(prost_types::Timestamp { seconds: t.clock.now().seconds() + days * 86_400, nanos: 0 });
    let wrong = v1::RecordBillingEventRequest {
        provider: "Stripe!".to_owned(),
        event_id: String::new(),
        kind: 0,
        amount: -1,
        currency: "euro".to_owned(),
        event_time: far(2),
        paid_until_time: far(4000),
        provider_ids: Some(v1::ProviderIds { customer: "x".repeat(256), ..Default::default() }),
        tenant: acme.id.clone(),
    };
    let mut fields = wrong_fields(t.operator().tenants.record_billing_event(wrong).await);
    fields.sort_unstable();
    let all = [
        "amount",
        "currency",
        "event_id",
        "event_time",
        "kind",
        "paid_until_time",
        "provider",
        "provider_ids.customer",
    ];
    assert_eq!(fields, all);
    let ancient = v1::RecordBillingEventRequest {
        event_time: Some(prost_types::Timestamp { seconds: 900_000_000, nanos: 0 }),
        ..told(&acme, "evt", v1::BillingEventKind::Paid)
    };
    assert_eq!(wrong_fields(t.operator().tenants.record_billing_event(ancient).await), ["event_time"]);
}

async fn every_change_of_a_subscription_is_in_the_audit_log(t: &Bed) {
    let t = product(t).await;
    let acme = on_plan(&t, "starter").await;
    t.clock.advance(TimeDelta::days(8));
    let mut clients = owner(&t, &acme).await;
    let cancel = v1::CancelSubscriptionRequest { reason: "moving on".to_owned(), ..Default::default() };
    clients.tenants.cancel_subscription(cancel).await.unwrap();
    let log = t.audit(&acme.id).await;
    let row = |action: &str| -> Value {
        let row = log.iter().find(|row| row.action == action).unwrap_or_else(|| panic!("no {action}: {log:?}"));
        serde_json::from_str(&row.changes).unwrap()
    };
    // What time brought is the server's own row, and not the owner's doing.
    let settled = row("System/SettleTenant");
    assert_eq!(settled["plan"]["after"], "free");
    let cancelled = row("TenantService/CancelSubscription");
    assert_eq!(cancelled["reason"]["after"], "moving on");
    assert_eq!(cancelled["subscription_status"]["after"], "cancelled");
    assert!(cancelled.get("plan").is_none());
}
