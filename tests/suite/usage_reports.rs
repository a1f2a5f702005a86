//! Reports: what was used over spans of time, by whom, and who uses most.

use std::collections::BTreeMap;

use tenantry::rpc::v1;
use tenantry::rpc::v1::UsageDimension as By;
use tenantry::rpc::v1::UsageGranularity as Every;
use tenantry::time::{Clock as _, Timestamp};
use tonic::Code;

use crate::api_keys::create;
use crate::commands::{json, lines, refused, text};
use crate::harness::{Bed, Clients, Tenant, amounts, assert_refused, on_both_engines, wrong_fields};

on_both_engines! {
    sums_are_by_metric_and_whatever_else_is_asked_for
    days_are_those_of_the_tenants_zone
    a_quarter_is_a_quarter_in_every_zone
    too_much_at_once_is_refused_with_what_to_do
    what_cannot_be_asked_is_named
    only_members_see_the_sums
    operators_see_who_uses_most
    the_command_line_shows_what_was_used
    ;
    alone
    owners_who_want_it_are_sent_what_was_used_each_month
}

async fn consume(clients: &mut Clients, list: &[(&str, i64)]) {
    let request = v1::ConsumeRequest { amounts: amounts(list), ..Default::default() };
    clients.usage.consume(request).await.unwrap();
}

fn at(text: &str) -> prost_types::Timestamp {
    let at = chrono::DateTime::parse_from_rfc3339(text).unwrap();
    prost_types::Timestamp { seconds: at.timestamp(), nanos: 0 }
}

async fn query(t: &Bed, tenant: &Tenant, request: v1::QueryUsageRequest) -> v1::QueryUsageResponse {
    let request = v1::QueryUsageRequest { tenant: tenant.id.clone(), ..request };
    t.operator().usage.query_usage(request).await.unwrap().into_inner()
}

/// Sums without the span that they are in.
fn groups(found: &v1::QueryUsageResponse) -> Vec<(String, String, i64, i64)> {
    let group = |sum: &v1::UsageSum| {
        let rest = format!("{}{}{}{}", sum.user_id, sum.api_key_id, sum.endpoint, sum.method);
        (sum.metric.clone(), rest, sum.events, sum.amount)
    };
    let mut all: Vec<_> = found.sums.iter().map(group).collect();
    all.sort();
    all
}

async fn sums_are_by_metric_and_whatever_else_is_asked_for(t: &Bed) {
    let acme = t.tenant("acme").await;
    let member = t.member(&acme, "member").await;
    let key = create(t, &acme.owner, &["usage.*"]).await;
    let key_id = key.key.unwrap().api_key_id;
    let mut owner = t.with_token(&acme.owner.token);
    consume(&mut owner, &[("quizzes", 3), ("tokens", 10)]).await;
    consume(&mut owner, &[("quizzes", 4)]).await;
    consume(&mut t.with_token(&member.token), &[("quizzes", 5)]).await;
    consume(&mut t.with_key(&key.secret), &[("tokens", 7)]).await;
    let of = |metric: &str, rest: &str, events, amount| (metric.to_owned(), rest.to_owned(), events, amount);
    let month = v1::QueryUsageRequest { granularity: Every::Month.into(), ..Default::default() };
    let found = query(t, &acme, month.clone()).await;
    assert_eq!(groups(&found), [of("quizzes", "", 3, 12), of("tokens", "", 2, 17)]);
    let totals: Vec<_> = found.totals.iter().map(|total| (total.metric.as_str(), total.events, total.amount)).collect();
    assert_eq!((totals, found.time_zone.as_str()), (vec![("quizzes", 3, 12), ("tokens", 2, 17)], "UTC"));

    let by_member = v1::QueryUsageRequest { group_by: vec![By::Member.into(), By::Metric.into()], ..month.clone() };
    let mut expected = vec![
        of("quizzes", &acme.owner.id, 2, 7),
        of("quizzes", &member.id, 1, 5),
        of("tokens", "", 1, 7),
        of("tokens", &acme.owner.id, 1, 10),
    ];
    expected.sort();
    assert_eq!(groups(&query(t, &acme, by_member).await), expected);
    let by_key = v1::QueryUsageRequest {
        group_by: vec![By::ApiKey.into(), By::Endpoint.into(), By::Method.into(), By::Status.into()],
        metrics: vec!["tokens".to_owned()],
        ..month
    };
    assert_eq!(groups(&query(t, &acme, by_key).await), [of("tokens", "", 1, 10), of("tokens", &key_id, 1, 7)]);
    let other = t.tenant("other").await;
    assert_eq!(query(t, &other, v1::QueryUsageRequest::default()).await.sums, []);
}

/// Puts roll-ups where they are wanted, behind the server's back: days that are long gone.
async fn seed(t: &Bed, tenant: &Tenant, quarters: &[(&str, i64)]) {
    t.spoils(&tenant.id);
    for (shard, (text, amount)) in quarters.iter().enumerate() {
        t.seed_rollup(&tenant.id, Timestamp::from_micros(at(text).seconds * 1_000_000), *amount, shard).await;
    }
}

pub(crate) async fn in_zone(t: &Bed, tenant: &Tenant, zone: &str) {
    let settings = v1::Settings { time_zone: zone.to_owned(), ..Default::default() };
    let request = v1::UpdateSettingsRequest {
        tenant: tenant.id.clone(),
        settings: Some(settings),
        update_mask: Some(prost_types::FieldMask { paths: vec!["time_zone".to_owned()] }),
        ..Default::default()
    };
    t.operator().tenants.update_settings(request).await.unwrap();
}

/// Amounts by the beginning of their span, with its length in quarters of an hour.
fn by_span(found: &v1::QueryUsageResponse) -> BTreeMap<String, (i64, i64)> {
    let spans: Vec<(i64, i64)> =
        found.spans.iter().map(|span| (span.start_time.unwrap().seconds, span.end_time.unwrap().seconds)).collect();
    assert!(spans.windows(2).all(|pair| pair[0].1 == pair[1].0), "a gap or an overlap: {spans:?}");
    let mut all = BTreeMap::new();
    for sum in &found.sums {
        let (start, end) = spans[usize::try_from(sum.span).unwrap()];
        let text = Timestamp::from_micros(start * 1_000_000).to_string();
        assert!(all.insert(text, (sum.amount, (end - start) / 900)).is_none());
    }
    all
}

async fn days_are_those_of_the_tenants_zone(t: &Bed) {
    let acme = t.tenant("acme").await;
    // The day before clocks are put forward in Berlin, that day, and the day after.
    seed(
        t,
        &acme,
        &[
            ("2024-03-30T22:45:00Z", 1),
            ("2024-03-30T23:00:00Z", 10),
            ("2024-03-31T21:45:00Z", 100),
            ("2024-03-31T22:00:00Z", 1000),
        ],
    )
    .await;
    let days = v1::QueryUsageRequest {
        start_time: Some(at("2024-03-29T23:00:00Z")),
        end_time: Some(at("2024-04-01T22:00:00Z")),
        ..Default::default()
    };
    let is = |list: &[(&str, i64, i64)]| -> BTreeMap<String, (i64, i64)> {
        list.iter().map(|(start, amount, quarters)| ((*start).to_owned(), (*amount, *quarters))).collect()
    };
    in_zone(t, &acme, "Europe/Berlin").await;
    let found = query(t, &acme, days.clone()).await;
    assert_eq!((found.spans.len(), found.time_zone.as_str()), (3, "Europe/Berlin"));
    let expected =
        [("2024-03-29T23:00:00Z", 1, 96), ("2024-03-30T23:00:00Z", 110, 92), ("2024-03-31T22:00:00Z", 1000, 96)];
    assert_eq!(by_span(&found), is(&expected));
    // In UTC they are other days, of which the first and the last are cut.
    in_zone(t, &acme, "UTC").await;
    let expected = [("2024-03-30T00:00:00Z", 11, 96), ("2024-03-31T00:00:00Z", 1100, 96)];
    assert_eq!(by_span(&query(t, &acme, days).await), is(&expected));
    in_zone(t, &acme, "Europe/Berlin").await;
    let months = v1::QueryUsageRequest {
        start_time: Some(at("2024-02-29T23:00:00Z")),
        end_time: Some(at("2024-04-30T22:00:00Z")),
        granularity: Every::Month.into(),
        ..Default::default()
    };
    let expected = [("2024-02-29T23:00:00Z", 111, 31 * 96 - 4), ("2024-03-31T22:00:00Z", 1000, 30 * 96)];
    assert_eq!(by_span(&query(t, &acme, months).await), is(&expected));
}

async fn a_quarter_is_a_quarter_in_every_zone(t: &Bed) {
    let acme = t.tenant("acme").await;
    seed(t, &acme, &[("2024-01-09T18:15:00Z", 1), ("2024-01-09T18:30:00Z", 10), ("2024-01-10T18:15:00Z", 100)]).await;
    let range = v1::QueryUsageRequest {
        start_time: Some(at("2024-01-09T00:00:00Z")),
        end_time: Some(at("2024-01-11T00:00:00Z")),
        ..Default::default()
    };
    for (zone, every, first) in [
        // UTC+5:30: the day begins at 18:30, and so does the hour at half past.
        ("Asia/Kolkata", Every::Day, ["2024-01-09T00:00:00Z", "2024-01-09T18:30:00Z"]),
        ("Asia/Kolkata", Every::Hour, ["2024-01-09T17:30:00Z", "2024-01-09T18:30:00Z"]),
        // UTC+5:45: at 18:15.
        ("Asia/Kathmandu", Every::Day, ["2024-01-09T18:15:00Z", "2024-01-10T18:15:00Z"]),
        ("Asia/Kathmandu", Every::Hour, ["2024-01-09T18:15:00Z", "2024-01-10T18:15:00Z"]),
        ("Asia/Kathmandu", Every::QuarterHour, ["2024-01-09T18:15:00Z", "2024-01-09T18:30:00Z"]),
    ] {
        in_zone(t, &acme, zone).await;
        let found = query(t, &acme, v1::QueryUsageRequest { granularity: every.into(), ..range.clone() }).await;
        let sums = by_span(&found);
        assert_eq!(sums.keys().take(2).collect::<Vec<_>>(), first, "{zone} {every:?}");
        assert_eq!(sums.values().map(|(amount, _)| amount).sum::<i64>(), 111);
    }
}

async fn too_much_at_once_is_refused_with_what_to_do(t: &Bed) {
    let acme = t.tenant("acme").await;
    let year = v1::QueryUsageRequest {
        tenant: acme.id.clone(),
        start_time: Some(at("2023-01-01T00:00:00Z")),
        end_time: Some(at("2024-01-01T00:00:00Z")),
        granularity: Every::QuarterHour.into(),
        ..Default::default()
    };
    let refused = t.operator().usage.query_usage(year.clone()).await.unwrap_err();
    assert!(
        refused.message().contains("ask for longer ones") || format!("{refused:?}").contains("ask for longer ones")
    );
    assert_eq!(wrong_fields(t.operator().usage.query_usage(year.clone()).await), ["granularity"]);
    let days = v1::QueryUsageRequest { granularity: Every::Day.into(), ..year };
    assert_eq!(t.operator().usage.query_usage(days.clone()).await.unwrap().into_inner().spans.len(), 365);
    t.spoils(&acme.id);
    t.execute(MANY_ENDPOINTS[usize::from(t.database.is_some())], &acme.id).await;
    let by_endpoint = v1::QueryUsageRequest { group_by: vec![By::Endpoint.into()], ..days.clone() };
    assert_eq!(wrong_fields(t.operator().usage.query_usage(by_endpoint).await), ["group_by"]);
    assert_eq!(query(t, &acme, days).await.totals[0].amount, 10_001);
}

/// 10,001 endpoints in a quarter of an hour of 2023.
const MANY_ENDPOINTS: [&str; 2] = [
    "insert into usage_rollup
     with recursive n (i) as (select 0 union all select i + 1 from n where i < 10000)
     select $1, 1686830400000000, 'quizzes', zeroblob(16), zeroblob(16), '/e/' || i, '', 0, 0, 1, 1 from n",
    "insert into usage_rollup
     select $1, to_timestamp(1686830400), 'quizzes', '00000000-0000-0000-0000-000000000000',
            '00000000-0000-0000-0000-000000000000', '/e/' || i, '', 0, 0, 1, 1
     from generate_series(0, 10000) i",
];

async fn what_cannot_be_asked_is_named(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    for (request, field) in [
        (v1::QueryUsageRequest { granularity: 9, ..Default::default() }, "granularity"),
        (v1::QueryUsageRequest { group_by: vec![0], ..Default::default() }, "group_by[0]"),
        (v1::QueryUsageRequest { group_by: vec![2, 99], ..Default::default() }, "group_by[1]"),
        (v1::QueryUsageRequest { group_by: vec![2, 3, 2], ..Default::default() }, "group_by[2]"),
        (v1::QueryUsageRequest { metrics: vec!["No!".to_owned()], ..Default::default() }, "metrics"),
        (v1::QueryUsageRequest { metrics: vec!["quizzes".to_owned(); 101], ..Default::default() }, "metrics"),
        (v1::QueryUsageRequest { start_time: time(-1), ..Default::default() }, "start_time"),
        (v1::QueryUsageRequest { end_time: time(i64::MAX), ..Default::default() }, "end_time"),
        (v1::QueryUsageRequest { start_time: time(1000), end_time: time(1000), ..Default::default() }, "start_time"),
    ] {
        assert_eq!(wrong_fields(owner.usage.query_usage(request).await), [field]);
    }
    let unknown = v1::QueryUsageRequest { metrics: vec!["unicorns".to_owned()], ..Default::default() };
    assert_refused(owner.usage.query_usage(unknown).await, Code::InvalidArgument, "METRIC_UNKNOWN");
    for (metric, limit, field) in [("", 0, "metric"), ("members", 0, "metric"), ("quizzes", -1, "limit")] {
        let request = v1::TopTenantsRequest { metric: metric.to_owned(), limit };
        assert_eq!(wrong_fields(t.operator().usage.top_tenants(request).await), [field], "{metric}");
    }
}

async fn only_members_see_the_sums(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let viewer = t.member(&acme, "viewer").await;
    t.with_token(&viewer.token).usage.query_usage(v1::QueryUsageRequest::default()).await.expect("a viewer looks");
    let request = v1::QueryUsageRequest { tenant: acme.id.clone(), ..Default::default() };
    let refused = t.with_token(&globex.owner.token).usage.query_usage(request).await;
    assert_refused(refused, Code::InvalidArgument, "TENANT_CONFLICT");
    let request = v1::TopTenantsRequest { metric: "quizzes".to_owned(), limit: 0 };
    let refused = t.with_token(&acme.owner.token).usage.top_tenants(request).await;
    assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
}

async fn operators_see_who_uses_most(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    // More than any test beside this one.
    consume(&mut t.with_token(&acme.owner.token), &[("storms", 1 << 50)]).await;
    consume(&mut t.with_token(&globex.owner.token), &[("storms", (1 << 50) + 1)]).await;
    let request = v1::TopTenantsRequest { metric: "storms".to_owned(), limit: 1000 };
    let top = t.operator().usage.top_tenants(request.clone()).await.unwrap().into_inner().tenants;
    assert!(top.windows(2).all(|pair| pair[0].used >= pair[1].used));
    let place = |tenant: &Tenant| top.iter().position(|top| top.tenant_id == tenant.id).unwrap();
    assert!(place(&globex) < place(&acme));
    let found = &top[place(&globex)];
    assert_eq!((found.used, found.limit, found.slug.as_str()), ((1 << 50) + 1, None, globex.slug.as_str()));
    assert!(found.period_start_time.unwrap().seconds <= t.clock.now().seconds());
    assert!(found.reset_time.unwrap().seconds > t.clock.now().seconds());
    let one = v1::TopTenantsRequest { limit: 1, ..request };
    assert_eq!(t.operator().usage.top_tenants(one).await.unwrap().into_inner().tenants.len(), 1);
}

async fn the_command_line_shows_what_was_used(t: &Bed) {
    let acme = t.tenant("acme").await;
    consume(&mut t.with_token(&acme.owner.token), &[("quizzes", 25)]).await;
    let shown = text(t, &["usage", "show", &acme.slug, "quizzes"]);
    assert!(shown.contains("METRIC") && shown.contains("25 %") && shown.contains("plan"), "{shown}");
    let sums = text(t, &["usage", "query", &acme.slug, "--by", "member,status"]);
    assert!(sums.contains(&acme.owner.id) && sums.contains("time zone  UTC") && sums.contains("TOTAL"), "{sums}");
    let sums = json(t, &["usage", "query", &acme.slug, "--every", "month", "--metric", "quizzes"]);
    assert_eq!(sums["totals"][0]["amount"], 25);
    let event = &lines(t, &["usage", "events", &acme.slug])[0];
    assert_eq!((&event["kind"], &event["amounts"][0]["amount"]), (&"consume".into(), &25.into()));
    let exported = text(t, &["usage", "export", &acme.slug]);
    assert!(exported.lines().count() == 1 && exported.starts_with('{'), "{exported}");
    let file = t.dir.path().join(format!("{}.jsonl", acme.slug));
    let told = text(t, &["usage", "export", &acme.slug, "--out", file.to_str().unwrap()]);
    assert!(told.starts_with("1 events in "), "{told}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), exported);
    let top = text(t, &["usage", "top", "quizzes", "--limit", "1000"]);
    assert!(top.contains(&acme.slug), "{top}");
    let shown = text(t, &["usage", "thresholds", &acme.slug]);
    assert!(shown.contains("80 %, 100 %") && shown.contains("default"), "{shown}");
    let set = json(t, &["usage", "thresholds", &acme.slug, "quizzes", "50", "75"]);
    assert_eq!(set["percents"], serde_json::json!([50, 75]));
    let off = text(t, &["usage", "thresholds", &acme.slug, "quizzes", "--off"]);
    assert!(off.contains("none") && off.contains("tenant"), "{off}");
    refused(t, &["usage", "thresholds", &acme.slug, "quizzes", "75", "50"], "rising");
    refused(t, &["usage", "show", &acme.slug, "unicorns"], "METRIC_UNKNOWN");
}

async fn owners_who_want_it_are_sent_what_was_used_each_month(t: Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let settings = v1::Settings { usage_report: "monthly".to_owned(), locale: "de".to_owned(), ..Default::default() };
    let paths = ["usage_report".to_owned(), "locale".to_owned()].to_vec();
    let request = v1::UpdateSettingsRequest {
        tenant: acme.id.clone(),
        settings: Some(settings),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    };
    t.operator().tenants.update_settings(request.clone()).await.unwrap();
    let wrong = v1::Settings { usage_report: "daily".to_owned(), ..Default::default() };
    let wrong = v1::UpdateSettingsRequest { settings: Some(wrong), ..request };
    assert_eq!(wrong_fields(t.operator().tenants.update_settings(wrong).await), ["settings.usage_report"]);
    in_zone(&t, &acme, "Pacific/Auckland").await;
    for tenant in [&acme, &globex] {
        consume(&mut t.with_token(&tenant.owner.token), &[("quizzes", 25), ("tokens", 40)]).await;
    }
    let month = |at: Timestamp| at.utc().with_timezone(&chrono_tz::Pacific::Auckland).format("%Y-%m").to_string();
    let used_in = month(t.clock.now());
    while month(t.clock.now()) == used_in {
        t.run_jobs().await;
        assert!(!t.mails_to(&acme.owner.email).iter().any(|mail| mail.contains("verbraucht")), "before its time");
        t.clock.advance(chrono::TimeDelta::days(1));
    }
    for _ in 0..3 {
        t.run_jobs().await;
        // Into the month of the other one as well.
        t.clock.advance(chrono::TimeDelta::hours(12));
    }
    let letters: Vec<String> =
        t.mails_to(&acme.owner.email).into_iter().filter(|mail| mail.contains("verbraucht")).collect();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].contains(&used_in) && letters[0].contains("25 quizzes, 40 tokens"), "{}", letters[0]);
    assert!(!t.mails_to(&globex.owner.email).iter().any(|mail| mail.contains("used in")), "nobody asked for it");
}
