//! Events that are recorded after the fact, one by one and in streams.

use chrono::TimeDelta;
use futures::StreamExt as _;
use tenantry::rpc::v1;
use tenantry::time::Clock as _;
use tonic::Code;

use crate::harness::{Bed, amounts, assert_refused, on_both_engines, request_id, until};
use crate::metering::{ask, product, service, usage};
use crate::rows::connect_sqlite;
use crate::startup::run;

on_both_engines! {
    records_are_counted_above_the_limit_and_once
    a_wrong_event_stops_no_other
    what_cannot_be_written_stops_no_other
    a_stream_of_events_is_recorded
    a_stream_ends_with_the_right_to_it
    a_stream_is_answered_before_its_deadline
}

pub(crate) fn event(list: &[(&str, i64)], key: &str) -> v1::UsageEvent {
    v1::UsageEvent { amounts: amounts(list), idempotency_key: key.to_owned(), ..Default::default() }
}

async fn records_are_counted_above_the_limit_and_once(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let events: Vec<_> = (0..20).map(|n| event(&[("ever", 1), ("tokens", 2)], &format!("e{n}"))).collect();
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request.clone()).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.reason.is_empty() && !result.already_recorded), "{results:?}");
    let again = service.usage.record_usage(request).await.unwrap().into_inner().results;
    assert!(again.iter().all(|result| result.already_recorded), "{again:?}");
    let ever = usage(&mut service, &acme, "ever").await;
    assert_eq!((ever.used, ever.limit, ever.remaining), (20, Some(7), Some(0)));
    assert_eq!(usage(&mut service, &acme, "tokens").await.used, 40);
    let full = service.usage.consume(ask(&acme, &[("ever", 1)], "")).await;
    assert_refused(full, Code::ResourceExhausted, "QUOTA_EXCEEDED");
}

async fn a_wrong_event_stops_no_other(t: &Bed) {
    let (t, acme) = product(t).await;
    let other = t.tenant("other").await;
    let mut service = service(&t).await;
    let at = |delta: TimeDelta| {
        let micros = t.clock.now().after(delta).micros();
        Some(prost_types::Timestamp { seconds: micros / 1_000_000, nanos: 0 })
    };
    let of = |details: v1::UsageDetails| v1::UsageEvent { details: Some(details), ..event(&[("ever", 1)], "") };
    let many = (0..21).map(|n| (n.to_string(), String::new())).collect();
    let long = [("k".to_owned(), "v".repeat(257))].into();
    let events = vec![
        event(&[("ever", 1)], ""),
        event(&[("ever", -1)], ""),
        event(&[("ever", i64::MAX)], ""),
        event(&[("nonsense", 1)], ""),
        v1::UsageEvent { event_time: at(TimeDelta::days(-91)), ..event(&[("ever", 1)], "") },
        v1::UsageEvent { event_time: at(TimeDelta::minutes(11)), ..event(&[("ever", 1)], "") },
        of(v1::UsageDetails { attributes: many, ..Default::default() }),
        of(v1::UsageDetails { attributes: long, ..Default::default() }),
        of(v1::UsageDetails { user_id: other.owner.id.clone(), ..Default::default() }),
        of(v1::UsageDetails { api_key_id: request_id(), ..Default::default() }),
        of(v1::UsageDetails { endpoint: "x".repeat(129), ..Default::default() }),
        of(v1::UsageDetails { status_code: 1000, ..Default::default() }),
        event(&[("ever", 1)], "tenantry:mine"),
        event(&[], ""),
        of(v1::UsageDetails { user_id: acme.owner.id.clone(), endpoint: "/a\u{7f}".to_owned(), ..Default::default() }),
        of(v1::UsageDetails {
            user_id: acme.owner.id.clone(),
            endpoint: "/quizzes/{id}".to_owned(),
            method: "POST".to_owned(),
            status_code: 201,
            latency: Some(prost_types::Duration { seconds: 0, nanos: 5_000_000 }),
            attributes: [("model".to_owned(), "größte 🦀".to_owned())].into(),
            ..Default::default()
        }),
    ];
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
    let reasons: Vec<&str> = results.iter().map(|result| result.reason.as_str()).collect();
    let wrong = "FIELDS_INVALID";
    assert_eq!(
        reasons,
        [
            "",
            wrong,
            wrong,
            "METRIC_UNKNOWN",
            wrong,
            wrong,
            wrong,
            wrong,
            "MEMBER_NOT_FOUND",
            "KEY_NOT_FOUND",
            wrong,
            wrong,
            wrong,
            wrong,
            wrong,
            "",
        ]
    );
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 2);
    let kept = "select endpoint, method, status, latency_us, attributes from usage_event
                where tenant_id = $1 and endpoint <> ''";
    let rows: Vec<(String, String, i64, i64, String)> = t.rows(kept, &acme.id).await;
    let kept = ("/quizzes/{id}".to_owned(), "POST".to_owned(), 201, 5000, r#"{"model":"größte 🦀"}"#.to_owned());
    assert_eq!(rows, [kept]);
    // Members speak for themselves.
    let mut member = t.with_token(&t.member(&acme, "member").await.token);
    let as_owner = of(v1::UsageDetails { user_id: acme.owner.id.clone(), ..Default::default() });
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events: vec![as_owner] };
    let results = member.usage.record_usage(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].reason, wrong);
}

/// Has the database not take events of this endpoint.
async fn forbid_poison(t: &Bed) {
    if let Some(database) = &t.database {
        let mut admin = database.administrator().await;
        let never = "create function never() returns trigger language plpgsql as
                     'begin raise exception ''poison'' using errcode = ''22000''; end'";
        run(&mut admin, never).await;
        let trigger = "create trigger never before insert on usage_event for each row when (new.endpoint = '/poison')
                       execute function never()";
        run(&mut admin, trigger).await;
        return;
    }
    let trigger = "create trigger never before insert on usage_event when new.endpoint = '/poison'
                   begin select raise(abort, 'poison'); end";
    sqlx::raw_sql(trigger).execute(&mut connect_sqlite(t.dir.path(), false).await).await.unwrap();
}

async fn what_cannot_be_written_stops_no_other(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut service = service(&t).await;
    let largest = 1_i64 << 53;
    // One short of what an account of no limit holds together with the largest amount.
    let mut events = vec![event(&[("storms", largest)], ""); 511];
    events.push(event(&[("storms", 1)], ""));
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.reason.is_empty()), "{results:?}");
    let sums = "select committed, leased from quota_account where tenant_id = $1 and metric = 'storms'";
    let all = 511 * largest + 1;
    until("all of it is in the account", async || t.rows::<(i64, i64)>(sums, &acme.id).await == [(all, 0)]).await;
    forbid_poison(&t).await;
    let mut events: Vec<_> = (0..500).map(|n| event(&[("storms", 1), ("ever", 1)], &format!("e{n}"))).collect();
    let of = |endpoint: &str| Some(v1::UsageDetails { endpoint: endpoint.to_owned(), ..Default::default() });
    events[7].details = of("/a\0b");
    events[100].amounts = amounts(&[("ever", 1), ("storms", largest)]);
    for n in [250, 251, 499] {
        events[n].details = of("/poison");
    }
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events };
    let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
    let refused: Vec<(usize, &str)> = results
        .iter()
        .map(|result| result.reason.as_str())
        .enumerate()
        .filter(|(_, reason)| !reason.is_empty())
        .collect();
    let (wrong, poison) = ("FIELDS_INVALID", "INTERNAL");
    assert_eq!(refused, [(7, wrong), (100, wrong), (250, poison), (251, poison), (499, poison)]);
    assert_eq!(usage(&mut service, &acme, "ever").await.used, 495);
    assert_eq!(usage(&mut service, &acme, "storms").await.used, all + 495);
    let kept: Vec<(i64,)> = t.rows("select count(*) from usage_event where tenant_id = $1", &acme.id).await;
    assert_eq!(kept, [(512 + 495,)]);
}

async fn a_stream_of_events_is_recorded(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut owner = t.with_token(&acme.owner.token);
    let events: Vec<v1::StreamUsageRequest> = (0..1500)
        .map(|n| {
            let amount = if n % 100 == 7 { -1 } else { 1 };
            v1::StreamUsageRequest { event: Some(event(&[("calls", amount)], &format!("s{n}"))), ..Default::default() }
        })
        .collect();
    let told = owner.usage.stream_usage(tokio_stream::iter(events)).await.unwrap().into_inner();
    assert_eq!((told.recorded, told.refused), (1485, 15));
    let indices: Vec<i64> = told.refusals.iter().map(|refusal| refusal.index).collect();
    assert_eq!(indices, (0..15).map(|n| n * 100 + 7).collect::<Vec<i64>>());
    assert_eq!(usage(&mut owner, &acme, "calls").await.used, 1485);
    // A viewer may not, nor anybody from elsewhere.
    let mut viewer = t.with_token(&t.member(&acme, "viewer").await.token);
    let one = vec![v1::StreamUsageRequest { event: Some(event(&[("calls", 1)], "")), ..Default::default() }];
    let refused = viewer.usage.stream_usage(tokio_stream::iter(one)).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_stream_ends_with_the_right_to_it(t: &Bed) {
    let (t, acme) = product(t).await;
    let bob = t.member(&acme, "member").await;
    let mut member = t.with_token(&bob.token);
    let (send, events) = tokio::sync::mpsc::channel(1);
    let one = || v1::StreamUsageRequest { tenant: acme.id.clone(), event: Some(event(&[("tokens", 1)], "")) };
    send.send(one()).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(events);
    let call = tokio::spawn(async move { member.usage.stream_usage(stream).await });
    let mut service = service(&t).await;
    until("the first is recorded", || {
        let mut service = service.clone();
        let acme = &acme;
        async move { usage(&mut service, acme, "tokens").await.used == 1 }
    })
    .await;
    let remove = v1::RemoveMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).members.remove_member(remove).await.unwrap();
    until("no more are taken", || async { send.send(one()).await.is_err() }).await;
    assert_refused(call.await.unwrap(), Code::NotFound, "TENANT_NOT_FOUND");
    let used = usage(&mut service, &acme, "tokens").await.used;
    assert_eq!(usage(&mut service, &acme, "tokens").await.used, used);
}

async fn a_stream_is_answered_before_its_deadline(t: &Bed) {
    let (t, acme) = product(t).await;
    let mut owner = t.with_token(&acme.owner.token);
    let three =
        (0..3).map(|_| v1::StreamUsageRequest { event: Some(event(&[("tokens", 1)], "")), ..Default::default() });
    let endless = tokio_stream::iter(three).chain(futures::stream::pending());
    let mut request = tonic::Request::new(endless);
    request.set_timeout(std::time::Duration::from_secs(4));
    let told = owner.usage.stream_usage(request).await.expect("what was recorded is told").into_inner();
    assert_eq!((told.recorded, told.refused), (3, 0));
}
