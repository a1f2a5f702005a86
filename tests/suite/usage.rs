//! Usage: consumption against limits, and repetition by idempotency key.

use chrono::TimeDelta;
use futures::future::join_all;
use tenantry::rpc::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Clients, Tenant, amounts, assert_refused, on_both_engines, wrong_fields};

on_both_engines! {
    consumption_is_counted_against_the_limit
    several_metrics_go_together_or_not_at_all
    an_unlimited_metric_has_no_end
    a_larger_plan_has_more
    what_cannot_be_consumed_is_named
    a_viewer_sees_and_does_not_consume
    a_key_gives_the_first_answer_again
    a_key_is_for_one_payload_and_one_tenant
    parallel_repetitions_are_charged_once
    a_refusal_without_a_key_is_not_remembered
    ;
    alone
    a_month_begins_anew
    a_refusal_stays_one_when_there_is_room_again
}

fn ask(list: &[(&str, i64)], key: &str) -> v1::ConsumeRequest {
    v1::ConsumeRequest { amounts: amounts(list), idempotency_key: key.to_owned(), ..Default::default() }
}

/// Used amounts of all metrics of the catalogue, by name; seats are there as well.
async fn used(clients: &mut Clients) -> Vec<(String, i64)> {
    let usage = clients.usage.get_usage(v1::GetUsageRequest::default()).await.unwrap().into_inner().usage;
    assert_eq!(usage.last().unwrap().metric, "members");
    usage.into_iter().map(|usage| (usage.metric, usage.used)).filter(|(metric, _)| metric != "members").collect()
}

fn is(list: &[(&str, i64)]) -> Vec<(String, i64)> {
    list.iter().map(|&(metric, used)| (metric.to_owned(), used)).collect()
}

/// The metrics that a refusal names.
#[track_caller]
fn short_of(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(details.error_info().unwrap().reason, "QUOTA_EXCEEDED");
    details.quota_failure().unwrap().violations.iter().map(|violation| violation.subject.clone()).collect()
}

async fn consumption_is_counted_against_the_limit(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let usage = owner.usage.consume(ask(&[("quizzes", 60)], "")).await.unwrap().into_inner().usage;
    let view = &usage[0];
    assert_eq!((view.metric.as_str(), view.unit.as_str(), view.used), ("quizzes", "quizzes", 60));
    assert_eq!((view.limit, view.remaining), (Some(100), Some(40)));
    let (start, reset) = (view.period_start_time.unwrap(), view.reset_time.unwrap());
    let days = (reset.seconds - start.seconds) / 86400;
    assert!((28..=31).contains(&days) && start.seconds % 86400 == 0 && start.nanos == 0);
    let refused = owner.usage.consume(ask(&[("quizzes", 41)], "")).await.unwrap_err();
    assert_eq!(short_of(&refused), ["quizzes"]);
    let told = &refused.get_details_quota_failure().unwrap().violations[0].description;
    assert!(told.starts_with("41 asked, 60 of 100 used until "), "{told}");
    let last = owner.usage.consume(ask(&[("quizzes", 40)], "")).await.unwrap().into_inner().usage;
    assert_eq!(last[0].remaining, Some(0));
    short_of(&owner.usage.consume(ask(&[("quizzes", 1)], "")).await.unwrap_err());
    assert_eq!(used(&mut owner).await, is(&[("quizzes", 100), ("storms", 0), ("tokens", 0)]));
    let asked = v1::GetUsageRequest { metrics: vec!["tokens".to_owned(), "quizzes".to_owned()], ..Default::default() };
    let some = owner.usage.get_usage(asked).await.unwrap().into_inner().usage;
    assert_eq!(some.iter().map(|usage| usage.metric.as_str()).collect::<Vec<_>>(), ["tokens", "quizzes"]);
}

async fn several_metrics_go_together_or_not_at_all(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.consume(ask(&[("tokens", 900), ("quizzes", 10), ("storms", 5)], "")).await.unwrap();
    let before = used(&mut owner).await;
    assert_eq!(before, is(&[("quizzes", 10), ("storms", 5), ("tokens", 900)]));
    for (list, short) in [
        (vec![("quizzes", 1), ("storms", 1), ("tokens", 101)], vec!["tokens"]),
        (vec![("tokens", 101), ("quizzes", 91)], vec!["quizzes", "tokens"]),
        (vec![("storms", 1), ("quizzes", 91)], vec!["quizzes"]),
    ] {
        for key in ["", &format!("all-{short:?}")] {
            let refused = owner.usage.consume(ask(&list, key)).await.unwrap_err();
            assert_eq!(short_of(&refused), short);
            assert_eq!(used(&mut owner).await, before, "a refused call left something");
        }
    }
    owner.usage.consume(ask(&[("tokens", 100), ("quizzes", 90)], "")).await.expect("both are still there");
}

async fn an_unlimited_metric_has_no_end(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let largest = 1_i64 << 53;
    for n in 1..=3 {
        let usage = owner.usage.consume(ask(&[("storms", largest)], "")).await.unwrap().into_inner().usage;
        assert_eq!((usage[0].used, usage[0].limit, usage[0].remaining), (n * largest, None, None));
    }
}

async fn a_larger_plan_has_more(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    short_of(&owner.usage.consume(ask(&[("quizzes", 101)], "")).await.unwrap_err());
    t.execute("update tenant set plan = 'pro' where tenant_id = $1", &acme.id).await;
    let usage = owner.usage.consume(ask(&[("quizzes", 101), ("tokens", 2000)], "")).await.unwrap().into_inner().usage;
    assert_eq!((usage[0].limit, usage[1].limit), (Some(5000), None));
    // A smaller one takes nothing back, and allows nothing more.
    t.execute("update tenant set plan = 'free' where tenant_id = $1", &acme.id).await;
    short_of(&owner.usage.consume(ask(&[("quizzes", 1)], "")).await.unwrap_err());
    let asked = v1::GetUsageRequest { metrics: vec!["quizzes".to_owned()], ..Default::default() };
    let view = owner.usage.get_usage(asked).await.unwrap().into_inner().usage.remove(0);
    assert_eq!((view.used, view.limit, view.remaining), (101, Some(100), Some(0)));
    // A plan that the catalogue does not have allows nothing.
    t.execute("update tenant set plan = 'lost' where tenant_id = $1", &acme.id).await;
    short_of(&owner.usage.consume(ask(&[("storms", 1)], "")).await.unwrap_err());
}

async fn what_cannot_be_consumed_is_named(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let unknown = owner.usage.consume(ask(&[("quizzes", 1), ("unicorns", 1)], "")).await;
    assert_refused(unknown, Code::InvalidArgument, "METRIC_UNKNOWN");
    let asked = v1::GetUsageRequest { metrics: vec!["unicorns".to_owned()], ..Default::default() };
    assert_refused(owner.usage.get_usage(asked).await, Code::InvalidArgument, "METRIC_UNKNOWN");
    assert_eq!(wrong_fields(owner.usage.consume(ask(&[], "")).await), ["amounts"]);
    assert_eq!(wrong_fields(owner.usage.consume(ask(&[("quizzes", 1); 21], "")).await), ["amounts"]);
    for bad in [0, -1, i64::MIN, (1 << 53) + 1, i64::MAX] {
        let wrong = wrong_fields(owner.usage.consume(ask(&[("storms", 1), ("quizzes", bad)], "")).await);
        assert_eq!(wrong, ["amounts[1].amount"]);
    }
    let twice = wrong_fields(owner.usage.consume(ask(&[("quizzes", 1), ("quizzes", 1)], "")).await);
    assert_eq!(twice, ["amounts[1].metric"]);
    for key in ["x".repeat(129), "käse".to_owned(), "a\nb".to_owned()] {
        assert_eq!(wrong_fields(owner.usage.consume(ask(&[("quizzes", 1)], &key)).await), ["idempotency_key"]);
    }
    assert_eq!(used(&mut owner).await, is(&[("quizzes", 0), ("storms", 0), ("tokens", 0)]));
}

async fn a_viewer_sees_and_does_not_consume(t: &Bed) {
    let acme = t.tenant("acme").await;
    let (viewer, member) = (t.member(&acme, "viewer").await, t.member(&acme, "member").await);
    let mut clients = t.with_token(&viewer.token);
    let refused = clients.usage.consume(ask(&[("quizzes", 1)], "")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    t.with_token(&member.token).usage.consume(ask(&[("quizzes", 1)], "")).await.expect("a member consumes");
    assert_eq!(used(&mut clients).await[0].1, 1);
}

async fn a_key_gives_the_first_answer_again(t: &Bed) {
    let acme = t.tenant("acme").await;
    let member = t.member(&acme, "member").await;
    let mut owner = t.with_token(&acme.owner.token);
    let asked = ask(&[("quizzes", 60), ("tokens", 1)], "order 1");
    let first = owner.usage.consume(asked.clone()).await.unwrap().into_inner();
    owner.usage.consume(ask(&[("quizzes", 1)], "order 2")).await.unwrap();
    // The same amounts in another order are the same payload, and keys are the tenant's: any member repeats.
    let turned = ask(&[("tokens", 1), ("quizzes", 60)], "order 1");
    assert_eq!(owner.usage.consume(turned).await.unwrap().into_inner(), first);
    assert_eq!(t.with_token(&member.token).usage.consume(asked).await.unwrap().into_inner(), first);
    assert_eq!(used(&mut owner).await, is(&[("quizzes", 61), ("storms", 0), ("tokens", 1)]));
    let asked = ask(&[("quizzes", 60)], "order 3");
    let refused = owner.usage.consume(asked.clone()).await.unwrap_err();
    owner.usage.consume(ask(&[("quizzes", 5)], "order 4")).await.unwrap();
    let again = owner.usage.consume(asked).await.unwrap_err();
    assert_eq!((refused.message(), refused.details()), (again.message(), again.details()));
}

async fn a_key_is_for_one_payload_and_one_tenant(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let mut owner = t.with_token(&acme.owner.token);
    owner.usage.consume(ask(&[("quizzes", 5)], "k")).await.unwrap();
    for other in [vec![("quizzes", 6)], vec![("tokens", 5)], vec![("quizzes", 5), ("tokens", 1)]] {
        let reused = owner.usage.consume(ask(&other, "k")).await;
        assert_refused(reused, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    }
    t.with_token(&globex.owner.token).usage.consume(ask(&[("quizzes", 6)], "k")).await.expect("another tenant's key");
    assert_eq!(used(&mut owner).await, is(&[("quizzes", 5), ("storms", 0), ("tokens", 0)]));
}

async fn parallel_repetitions_are_charged_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    for (key, amount, left) in [("fits", 60, 60), ("does not fit", 60, 60)] {
        let calls = (0..20).map(|_| {
            let mut clients = t.with_token(&acme.owner.token);
            async move {
                let answer = clients.usage.consume(ask(&[("quizzes", amount)], key)).await;
                answer.map(|done| format!("{:?}", done.into_inner())).map_err(|status| short_of(&status))
            }
        });
        let answers = join_all(calls).await;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{key}");
        assert_eq!(answers[0].is_ok(), key == "fits");
        assert_eq!(used(&mut t.with_token(&acme.owner.token)).await[0].1, left);
    }
    assert_eq!(events(t, &acme).await, 2);
}

async fn events(t: &Bed, tenant: &Tenant) -> i64 {
    let rows: Vec<(i64,)> = t.rows("select count(*) from usage_event where tenant_id = $1", &tenant.id).await;
    rows[0].0
}

async fn a_refusal_without_a_key_is_not_remembered(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    short_of(&owner.usage.consume(ask(&[("quizzes", 101)], "")).await.unwrap_err());
    assert_eq!(events(t, &acme).await, 0);
    let counted: Vec<(i64,)> = t.rows("select committed from quota_account where tenant_id = $1", &acme.id).await;
    assert_eq!(counted, [(0,)]);
    short_of(&owner.usage.consume(ask(&[("quizzes", 101)], "kept")).await.unwrap_err());
    assert_eq!(events(t, &acme).await, 1);
}

async fn a_month_begins_anew(t: Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["usage.*"]).await;
    let mut service = t.with_key(&key);
    let asked = v1::ConsumeRequest { tenant: acme.id.clone(), ..ask(&[("quizzes", 100)], "") };
    let first = service.usage.consume(asked.clone()).await.unwrap().into_inner().usage.remove(0);
    let reset = first.reset_time.unwrap().seconds;
    // Into the next month, whatever day it is today.
    t.clock.advance(TimeDelta::seconds(reset - first.period_start_time.unwrap().seconds));
    let look = v1::GetUsageRequest { tenant: acme.id.clone(), metrics: vec!["quizzes".to_owned()] };
    let view = service.usage.get_usage(look).await.unwrap().into_inner().usage.remove(0);
    assert_eq!((view.used, view.remaining), (0, Some(100)));
    assert!(view.period_start_time.unwrap().seconds >= reset);
    service.usage.consume(asked).await.expect("a new month");
}

async fn a_refusal_stays_one_when_there_is_room_again(t: Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["usage.*"]).await;
    let mut service = t.with_key(&key);
    let asked =
        |amount: i64, key: &str| v1::ConsumeRequest { tenant: acme.id.clone(), ..ask(&[("quizzes", amount)], key) };
    let admitted = service.usage.consume(asked(90, "yes")).await.unwrap().into_inner();
    let refused = service.usage.consume(asked(20, "no")).await.unwrap_err();
    t.clock.advance(TimeDelta::days(32));
    t.execute("update tenant set plan = 'pro' where tenant_id = $1", &acme.id).await;
    let again = service.usage.consume(asked(20, "no")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message(), refused.details()),
        (again.code(), again.message(), again.details())
    );
    assert_eq!(service.usage.consume(asked(90, "yes")).await.unwrap().into_inner(), admitted);
    let other = service.usage.consume(asked(21, "no")).await;
    assert_refused(other, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    let now = service.usage.consume(asked(20, "new")).await.unwrap().into_inner().usage.remove(0);
    assert_eq!(now.used, 20, "repetitions charged nothing in the new month");
}
