//! Reports against a recount: whatever was recorded, consumed, committed and given back, sums over spans and groups are what
//! somebody finds who adds up the listed events by hand.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use chrono_tz::Tz;
use tenantry::rpc::v1;
use tenantry::rpc::v1::UsageDimension as By;
use tenantry::rpc::v1::UsageGranularity as Every;
use tenantry::time::Clock as _;

use crate::api_keys::create;
use crate::harness::{Bed, Clients, Tenant, amounts, on_both_engines};
use crate::metering::service;
use crate::usage_events::{exported, listed};
use crate::usage_reports::in_zone;

on_both_engines! {
    sums_are_those_of_a_recount
}

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham"];

/// Numbers by chance, the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("a small number") % sides
    }

    fn amount(&mut self, most: usize) -> i64 {
        i64::try_from(self.below(most) + 1).expect("a small number")
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// Things of all kinds happen in the last fifty days.
async fn make_history(t: &Bed, acme: &Tenant, dice: &mut Dice) {
    let member = t.member(acme, "member").await;
    let key = create(t, &acme.owner, &["usage.*"]).await;
    let key_id = key.key.as_ref().expect("a key").api_key_id.clone();
    let mut service = service(t).await;
    let now = t.clock.now().seconds();
    let events = (0..300).map(|n| {
        let mut seconds = now - i64::try_from(dice.below(50 * 86_400)).expect("a small number");
        // Some at the very beginning of a span.
        if n % 3 == 0 {
            seconds -= seconds.rem_euclid([900, 3600, 86_400][dice.below(3)]);
        }
        let mut list = BTreeMap::new();
        for _ in 0..=dice.below(3) {
            list.insert(dice.of(&["quizzes", "storms", "tokens"]), dice.amount(9));
        }
        let list: Vec<(&str, i64)> = list.into_iter().collect();
        v1::UsageEvent {
            amounts: amounts(&list),
            idempotency_key: format!("e{n}"),
            event_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            details: Some(v1::UsageDetails {
                user_id: dice.of(&["", &acme.owner.id, &member.id]).to_owned(),
                api_key_id: dice.of(&["", &key_id]).to_owned(),
                endpoint: dice.of(&["", "/a", "/b/{id}", "/c"]).to_owned(),
                method: dice.of(&["GET", "POST"]).to_owned(),
                status_code: [0, 200, 404, 500][dice.below(4)],
                ..Default::default()
            }),
        }
    });
    let request = v1::RecordUsageRequest { tenant: acme.id.clone(), events: events.collect() };
    let results = service.usage.record_usage(request).await.unwrap().into_inner().results;
    assert!(results.iter().all(|result| result.reason.is_empty()), "{results:?}");
    for n in 0..40 {
        let metric = dice.of(&["quizzes", "storms", "tokens"]);
        let list = if n % 2 == 0 { vec![] } else { amounts(&[(metric, 1)]) };
        let request = v1::RefundRequest {
            tenant: acme.id.clone(),
            event_key: format!("e{}", dice.below(300)),
            amounts: list,
            idempotency_key: format!("r{n}"),
        };
        // Some have not so much, or not of this: nothing happens then.
        let _ = service.usage.refund(request).await;
    }
    consume_and_commit(&mut t.with_token(&member.token), dice).await;
    consume_and_commit(&mut t.with_key(&key.secret), dice).await;
}

async fn consume_and_commit(clients: &mut Clients, dice: &mut Dice) {
    for n in 0..10 {
        let list = amounts(&[("storms", dice.amount(9))]);
        clients.usage.consume(v1::ConsumeRequest { amounts: list, ..Default::default() }).await.unwrap();
        let too_much = v1::ConsumeRequest {
            amounts: amounts(&[("storms", 1), ("quizzes", 5000)]),
            idempotency_key: format!("refused {n}"),
            ..Default::default()
        };
        clients.usage.consume(too_much).await.expect_err("too much");
        let held = v1::ReserveRequest { amounts: amounts(&[("storms", 9)]), ..Default::default() };
        let held = clients.usage.reserve(held).await.unwrap().into_inner().reservation.expect("a reservation");
        let commit = v1::CommitReservationRequest {
            reservation_id: held.reservation_id,
            amounts: amounts(&[("storms", dice.amount(9))]),
            ..Default::default()
        };
        clients.usage.commit_reservation(commit).await.unwrap();
    }
}

/// What an instant is in, as a calendar on the wall shows it.
fn span_of(every: Every, zone: Tz, at: prost_types::Timestamp) -> String {
    let local = DateTime::from_timestamp(at.seconds, 0).expect("an instant").with_timezone(&zone);
    let form = match every {
        Every::QuarterHour => return (at.seconds.div_euclid(900)).to_string(),
        Every::Hour => "%Y-%m-%d %H %z",
        Every::Day => "%Y-%m-%d",
        _ => "%Y-%m",
    };
    local.format(form).to_string()
}

/// Events and amount.
type Sums = BTreeMap<String, (i64, i64)>;

/// Adds the listed events up.
fn recount(events: &[v1::UsageEventRecord], every: Every, zone: Tz, by: &[By]) -> Sums {
    let mut sums = Sums::new();
    let counted = |event: &&v1::UsageEventRecord| {
        event.verdict() == v1::UsageVerdict::Admitted && event.kind() != v1::UsageEventKind::Reserve
    };
    for event in events.iter().filter(counted) {
        let span = span_of(every, zone, event.event_time.expect("a time"));
        let member = if by.contains(&By::Member) { event.user_id.as_str() } else { "" };
        let key = if by.contains(&By::ApiKey) { event.api_key_id.as_str() } else { "" };
        let endpoint = if by.contains(&By::Endpoint) { event.endpoint.as_str() } else { "" };
        let method = if by.contains(&By::Method) { event.method.as_str() } else { "" };
        let status = if by.contains(&By::Status) { event.status_code } else { 0 };
        for amount in event.amounts.iter().filter(|amount| amount.amount != 0) {
            let group = format!("{span} {} {member} {key} {endpoint} {method} {status}", amount.metric);
            let sum = sums.entry(group).or_default();
            *sum = (sum.0 + 1, sum.1 + amount.amount);
        }
    }
    sums
}

/// The sums of an answer, by the same names.
fn answered(found: &v1::QueryUsageResponse, every: Every, zone: Tz) -> Sums {
    let spans: Vec<String> =
        found.spans.iter().map(|span| span_of(every, zone, span.start_time.expect("a start"))).collect();
    assert_eq!(spans.iter().collect::<BTreeSet<_>>().len(), spans.len(), "a span is there twice");
    let mut sums = Sums::new();
    for s in &found.sums {
        let span = &spans[usize::try_from(s.span).unwrap()];
        let (metric, member, key) = (&s.metric, &s.user_id, &s.api_key_id);
        let group = format!("{span} {metric} {member} {key} {} {} {}", s.endpoint, s.method, s.status_code);
        assert!(sums.insert(group.clone(), (s.events, s.amount)).is_none(), "{group} is there twice");
    }
    sums
}

/// What is given back is of the group of what it was taken for.
fn groups_add_up(events: &[v1::UsageEventRecord]) {
    let group = |e: &v1::UsageEventRecord| {
        (e.user_id.clone(), e.api_key_id.clone(), e.endpoint.clone(), e.method.clone(), e.status_code)
    };
    let given_back: Vec<_> = events.iter().filter(|event| event.kind() == v1::UsageEventKind::Refund).collect();
    assert!(given_back.len() > 10, "{}", given_back.len());
    for back in given_back {
        let taken = events.iter().find(|event| event.event_key == back.subject).expect("its event");
        assert_eq!(group(back), group(taken));
    }
}

async fn sums_are_those_of_a_recount(t: &Bed) {
    let mut dice = Dice(1);
    let acme = t.tenant("acme").await;
    let zone: Tz = dice.of(&ZONES).parse().unwrap();
    in_zone(t, &acme, zone.name()).await;
    make_history(t, &acme, &mut dice).await;
    let mut owner = t.with_token(&acme.owner.token);
    let all = v1::ListUsageEventsRequest { oldest_first: true, page_size: 100, ..Default::default() };
    let events = listed(&mut owner, all).await;
    assert!(events.len() > 350, "{}", events.len());
    assert_eq!(exported(&mut owner, &acme).await.unwrap(), events);
    let kinds: BTreeSet<i32> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds.len(), 5, "consumed, reserved, recorded, given back, committed");
    groups_add_up(&events);
    let dimensions = [By::Member, By::ApiKey, By::Endpoint, By::Method, By::Status];
    let now = t.clock.now().seconds();
    for every in [Every::QuarterHour, Every::Hour, Every::Day, Every::Month] {
        for some in 0_u32..1 << dimensions.len() {
            let by: Vec<By> = (0..5).filter(|n| some >> n & 1 == 1).map(|n| dimensions[n]).collect();
            // All combinations of days; of the rest nothing, each by itself, and everything.
            if every != Every::Day && !matches!(by.len(), 0 | 1 | 5) {
                continue;
            }
            let request = v1::QueryUsageRequest {
                start_time: Some(prost_types::Timestamp { seconds: now - 51 * 86_400, nanos: 0 }),
                end_time: Some(prost_types::Timestamp { seconds: now + 60, nanos: 0 }),
                granularity: every.into(),
                group_by: by.iter().map(|by| (*by).into()).collect(),
                ..Default::default()
            };
            let found = owner.usage.query_usage(request).await.unwrap().into_inner();
            let expected = recount(&events, every, zone, &by);
            assert_eq!(answered(&found, every, zone), expected, "{zone}, {every:?} by {by:?}");
            let totals: Sums =
                found.totals.iter().map(|total| (total.metric.clone(), (total.events, total.amount))).collect();
            let mut added = Sums::new();
            for (group, (count, amount)) in &expected {
                let metric = ["quizzes", "storms", "tokens"].into_iter().find(|name| group.contains(name)).unwrap();
                let sum = added.entry(metric.to_owned()).or_default();
                *sum = (sum.0 + count, sum.1 + amount);
            }
            assert_eq!(totals, added);
        }
    }
}
