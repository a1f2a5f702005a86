//! Single events: listed page by page, in both directions and narrowed, and exported whole.

use std::collections::HashSet;

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tenantry::time::{Clock as _, Timestamp};
use tonic::{Code, Status};

use crate::api_keys::create;
use crate::harness::{Bed, Clients, Tenant, amounts, assert_refused, on_both_engines, refusal, wrong_fields};

on_both_engines! {
    events_come_page_by_page_in_both_directions
    a_list_is_narrowed
    wrong_questions_are_refused
    only_who_may_read_sees_events
    an_export_has_every_event_once
    an_export_is_for_owners_and_is_written_down
    ;
    alone
    events_are_found_by_when_they_happened
    an_export_ends_with_its_credential
}

async fn consume(clients: &mut Clients, list: &[(&str, i64)], key: &str) -> Result<(), Status> {
    let request = v1::ConsumeRequest { amounts: amounts(list), idempotency_key: key.to_owned(), ..Default::default() };
    clients.usage.consume(request).await.map(drop)
}

/// All events, page by page.
pub(crate) async fn listed(clients: &mut Clients, request: v1::ListUsageEventsRequest) -> Vec<v1::UsageEventRecord> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListUsageEventsRequest { page_token, ..request.clone() };
        let page = clients.usage.list_usage_events(request).await.unwrap().into_inner();
        all.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

fn keys(events: &[v1::UsageEventRecord]) -> Vec<&str> {
    events.iter().map(|event| event.event_key.as_str()).collect()
}

async fn events_come_page_by_page_in_both_directions(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    for n in 0..7 {
        consume(&mut owner, &[("quizzes", n + 1)], &format!("key {n}")).await.unwrap();
    }
    let pages = v1::ListUsageEventsRequest { page_size: 2, ..Default::default() };
    let newest = listed(&mut owner, pages.clone()).await;
    assert_eq!(keys(&newest), (0..7).rev().map(|n| format!("key {n}")).collect::<Vec<_>>());
    let oldest = listed(&mut owner, v1::ListUsageEventsRequest { oldest_first: true, ..pages.clone() }).await;
    assert_eq!(keys(&oldest), (0..7).map(|n| format!("key {n}")).collect::<Vec<_>>());
    let event = &oldest[2];
    assert_eq!((event.kind(), event.verdict()), (v1::UsageEventKind::Consume, v1::UsageVerdict::Admitted));
    assert_eq!(event.amounts, amounts(&[("quizzes", 3)]));
    assert_eq!((event.user_id.as_str(), event.event_time), (acme.owner.id.as_str(), event.decide_time));
    // A token is for its own list.
    let first = owner.usage.list_usage_events(pages.clone()).await.unwrap().into_inner().next_page_token;
    for other in [
        v1::ListUsageEventsRequest { oldest_first: true, page_token: first.clone(), ..pages.clone() },
        v1::ListUsageEventsRequest { page_token: format!("{first}A"), ..pages.clone() },
        v1::ListUsageEventsRequest { page_token: "AQ".to_owned(), ..pages },
    ] {
        let refused = owner.usage.list_usage_events(other).await;
        assert_refused(refused, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    }
}

async fn a_list_is_narrowed(t: &Bed) {
    let acme = t.tenant("acme").await;
    let member = t.member(&acme, "member").await;
    let key = create(t, &acme.owner, &["usage.*"]).await;
    let mut owner = t.with_token(&acme.owner.token);
    consume(&mut owner, &[("quizzes", 1), ("tokens", 1)], "both").await.unwrap();
    consume(&mut owner, &[("tokens", 2)], "tokens").await.unwrap();
    consume(&mut t.with_token(&member.token), &[("quizzes", 3)], "member's").await.unwrap();
    consume(&mut t.with_key(&key.secret), &[("quizzes", 4)], "key's").await.unwrap();
    consume(&mut owner, &[("quizzes", 1000)], "too much").await.unwrap_err();
    let by_key = v1::UsageEventFilter { api_key_id: key.key.unwrap().api_key_id, ..Default::default() };
    let of_metric = |metric: &str| v1::UsageEventFilter { metric: metric.to_owned(), ..Default::default() };
    let of_user = |user: &str| v1::UsageEventFilter { user_id: user.to_owned(), ..Default::default() };
    let verdict = |verdict: v1::UsageVerdict| v1::UsageEventFilter { verdict: verdict.into(), ..Default::default() };
    for (filter, expected) in [
        (of_metric("tokens"), vec!["both", "tokens"]),
        (of_metric("quizzes"), vec!["both", "member's", "key's", "too much"]),
        (of_metric("storms"), vec![]),
        (of_user(&member.id), vec!["member's"]),
        (by_key, vec!["key's"]),
        (verdict(v1::UsageVerdict::Refused), vec!["too much"]),
        (verdict(v1::UsageVerdict::Admitted), vec!["both", "tokens", "member's", "key's"]),
        (v1::UsageEventFilter { metric: "tokens".to_owned(), ..of_user(&acme.owner.id) }, vec!["both", "tokens"]),
    ] {
        let request =
            v1::ListUsageEventsRequest { filter: Some(filter.clone()), oldest_first: true, ..Default::default() };
        assert_eq!(keys(&listed(&mut owner, request).await), expected, "{filter:?}");
    }
    let refused = v1::ListUsageEventsRequest { filter: Some(verdict(v1::UsageVerdict::Refused)), ..Default::default() };
    assert_eq!(listed(&mut owner, refused).await[0].amounts, amounts(&[("quizzes", 0)]));
}

async fn wrong_questions_are_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    for (filter, field) in [
        (v1::UsageEventFilter { metric: "\"],[\"".to_owned(), ..Default::default() }, "filter.metric"),
        (v1::UsageEventFilter { user_id: "me".to_owned(), ..Default::default() }, "filter.user_id"),
        (v1::UsageEventFilter { api_key_id: "it".to_owned(), ..Default::default() }, "filter.api_key_id"),
        (v1::UsageEventFilter { verdict: 7, ..Default::default() }, "filter.verdict"),
        (v1::UsageEventFilter { start_time: time(-5), ..Default::default() }, "filter.start_time"),
        (v1::UsageEventFilter { end_time: time(i64::MIN), ..Default::default() }, "filter.end_time"),
    ] {
        let request = v1::ListUsageEventsRequest { filter: Some(filter.clone()), ..Default::default() };
        assert_eq!(wrong_fields(owner.usage.list_usage_events(request).await), [field]);
        let request = v1::ExportUsageRequest { filter: Some(filter), ..Default::default() };
        let refused = owner.usage.export_usage(request).await;
        assert_eq!(wrong_fields(refused.map(|answer| answer.map(drop))), [field]);
    }
    let unknown = v1::UsageEventFilter { metric: "unicorns".to_owned(), ..Default::default() };
    let request = v1::ListUsageEventsRequest { filter: Some(unknown), ..Default::default() };
    assert_refused(owner.usage.list_usage_events(request).await, Code::InvalidArgument, "METRIC_UNKNOWN");
    let request = v1::ListUsageEventsRequest { page_size: -1, ..Default::default() };
    assert_eq!(wrong_fields(owner.usage.list_usage_events(request).await), ["page_size"]);
}

async fn only_who_may_read_sees_events(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    consume(&mut t.with_token(&acme.owner.token), &[("quizzes", 1)], "acme's").await.unwrap();
    let viewer = t.member(&acme, "viewer").await;
    let all = v1::ListUsageEventsRequest::default;
    assert_eq!(keys(&listed(&mut t.with_token(&viewer.token), all()).await), ["acme's"]);
    assert_eq!(keys(&listed(&mut t.with_token(&globex.owner.token), all()).await), Vec::<&str>::new());
    let named = v1::ListUsageEventsRequest { tenant: acme.id.clone(), ..Default::default() };
    let refused = t.with_token(&globex.owner.token).usage.list_usage_events(named.clone()).await;
    assert_refused(refused, Code::InvalidArgument, "TENANT_CONFLICT");
    let narrow = t.service_key(&["members.read"]).await;
    let refused = t.with_key(&narrow).usage.list_usage_events(named).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn events_are_found_by_when_they_happened(t: Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["usage.*"]).await;
    let mut service = t.with_key(&key);
    let began = t.clock.now();
    let mut times = Vec::new();
    for n in 0..5 {
        let request = v1::ConsumeRequest {
            tenant: acme.id.clone(),
            amounts: amounts(&[("storms", 1)]),
            idempotency_key: format!("hour {n}"),
            ..Default::default()
        };
        times.push(t.clock.now());
        service.usage.consume(request).await.unwrap();
        t.clock.advance(TimeDelta::hours(1));
    }
    let proto = |at: Timestamp| Some(prost_types::Timestamp { seconds: at.seconds(), nanos: 0 });
    let filter = v1::UsageEventFilter {
        start_time: proto(began.after(TimeDelta::minutes(30))),
        end_time: proto(times[3].after(TimeDelta::minutes(-30))),
        ..Default::default()
    };
    let request = v1::ListUsageEventsRequest { tenant: acme.id.clone(), filter: Some(filter), ..Default::default() };
    assert_eq!(keys(&listed(&mut service, request).await), ["hour 2", "hour 1"]);
    // One that was told late is where it happened, not where it came.
    t.execute("update usage_event set event_at = null where tenant_id = $1 and key = 'hour 4'", &acme.id).await;
    let all = v1::ListUsageEventsRequest { tenant: acme.id.clone(), oldest_first: true, ..Default::default() };
    assert_eq!(keys(&listed(&mut service, all).await).last(), Some(&"hour 4"), "one of the version before");
    t.spoils(&acme.id);
}

pub(crate) async fn exported(clients: &mut Clients, tenant: &Tenant) -> Result<Vec<v1::UsageEventRecord>, Status> {
    let request = v1::ExportUsageRequest { tenant: tenant.id.clone(), ..Default::default() };
    let mut stream = clients.usage.export_usage(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.extend(message.events);
    }
    Ok(all)
}

async fn an_export_has_every_event_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    let clients = t.with_token(&acme.owner.token);
    let calls = (0..1203).map(|n| {
        let mut clients = clients.clone();
        async move { consume(&mut clients, &[("storms", 1)], &format!("{n}")).await.unwrap() }
    });
    futures::future::join_all(calls).await;
    let all = exported(&mut t.with_token(&acme.owner.token), &acme).await.unwrap();
    assert_eq!(all.len(), 1203);
    // It ends where it began: what happens later, or is dated so, is not of it.
    let later = v1::UsageEvent {
        amounts: amounts(&[("storms", 1)]),
        event_time: Some(prost_types::Timestamp {
            seconds: t.clock.now().after(TimeDelta::minutes(5)).seconds(),
            nanos: 0,
        }),
        ..Default::default()
    };
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events: vec![later] };
    let results = t.with_token(&acme.owner.token).usage.record_usage(request).await.unwrap().into_inner().results;
    assert_eq!(results[0].reason, "");
    assert_eq!(exported(&mut t.with_token(&acme.owner.token), &acme).await.unwrap().len(), 1203);
    assert_eq!(keys(&all).into_iter().collect::<HashSet<_>>().len(), 1203);
    assert!(all.windows(2).all(|pair| pair[0].event_time.unwrap().seconds <= pair[1].event_time.unwrap().seconds));
    let nobody = t.tenant("nobody").await;
    assert_eq!(exported(&mut t.with_token(&nobody.owner.token), &nobody).await.unwrap(), []);
}

async fn an_export_is_for_owners_and_is_written_down(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let refused = exported(&mut t.with_token(&admin.token), &acme).await.unwrap_err();
    assert_eq!(refusal::<()>(Err(refused)).1, "PERMISSION_MISSING");
    exported(&mut t.with_token(&acme.owner.token), &acme).await.unwrap();
    let audit = t.audit(&acme.id).await;
    let row = audit.iter().rfind(|row| row.action == "UsageService/ExportUsage").expect("a row");
    assert!(row.changes.contains("usage") && row.actor_id.unwrap().to_string() == acme.owner.id);
}

async fn an_export_ends_with_its_credential(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    // More than fits between the server and a client who does not read.
    let long = "x".repeat(120);
    let clients = owner.clone();
    for round in 0..4 {
        let calls = (0..1000).map(|n| {
            let (mut clients, key) = (clients.clone(), format!("{round} {n} {long}"));
            async move { consume(&mut clients, &[("storms", 1)], &key[..key.len().min(128)]).await.unwrap() }
        });
        futures::future::join_all(calls).await;
    }
    let request = v1::ExportUsageRequest { tenant: acme.id.clone(), ..Default::default() };
    let mut stream = owner.usage.export_usage(request).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("some events");
    t.revoke_sessions(&acme.owner).await;
    t.clock.advance(TimeDelta::minutes(6));
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(end.is_err(), "the export went on to its end");
}
