//! What holds of every subscription, whatever was done to it and whenever anybody looked.

use proptest::prelude::*;

use super::*;
use crate::domain::catalogue::Definition;

const DAY: i64 = 86_400_000_000;
/// The end of January 2026: periods that begin on the 31st are among those tried.
const START: i64 = 1_769_817_600_000_000;

/// Plans of all kinds: cheap and dear, free with and without periods, trials into all of them, and a chain of downgrades.
fn catalogue(graces: [u16; 3], trial_days: u16) -> Catalogue {
    let [a, b, c] = graces;
    let text = format!(
        r#"
default_plan = "free"
[plans.free]
[plans.zero]
currency = "EUR"
price = {{ month = 0 }}
grace_days = {c}
[plans.cheap]
currency = "EUR"
price = {{ month = 100, year = 1000 }}
grace_days = {a}
trial = {{ days = {trial_days}, then = "suspend" }}
[plans.dear]
currency = "EUR"
price = {{ month = 5000 }}
grace_days = {b}
trial = {{ days = {trial_days}, then = {{ downgrade = "cheap" }} }}
[plans.foreign]
currency = "USD"
price = {{ year = 900 }}
grace_days = {c}
trial = {{ days = {trial_days}, then = {{ downgrade = "free" }} }}
[plans.taste]
trial = {{ days = {trial_days}, then = "suspend" }}
"#
    );
    let definition = Definition::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    let version = |(name, plan): (&String, &Plan)| (PlanRef { plan: name.clone(), version: 1 }, plan.clone());
    let versions = definition.plans.iter().map(version).collect();
    Catalogue { version: 1, definition, versions }
}

const PLANS: [&str; 6] = ["free", "zero", "cheap", "dear", "foreign", "taste"];

/// What may be done. The plan `taste` is nobody's to choose.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Change(usize, Option<Cycle>, bool),
    Later(usize, Option<Cycle>),
    Cancel(bool),
    Resume,
    Pause,
    Renew,
    Bill(Payment),
}

fn cycle() -> impl Strategy<Value = Option<Cycle>> {
    prop_oneof![Just(None), Just(Some(Cycle::Month)), Just(Some(Cycle::Year))]
}

fn of_tenant() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (0..5_usize, cycle()).prop_map(|(plan, cycle)| Deed::Change(plan, cycle, false)),
        2 => (0..5_usize, cycle()).prop_map(|(plan, cycle)| Deed::Later(plan, cycle)),
        2 => any::<bool>().prop_map(Deed::Cancel),
        3 => Just(Deed::Resume),
        2 => Just(Deed::Pause),
    ]
}

fn any_deed() -> impl Strategy<Value = Deed> {
    // Until so many days after 1970 around the time of the test.
    let until = (START / DAY..START / DAY + 900).prop_map(|day| Timestamp::from_micros(day * DAY));
    prop_oneof![
        6 => of_tenant(),
        1 => (0..5_usize, cycle()).prop_map(|(plan, cycle)| Deed::Change(plan, cycle, true)),
        1 => Just(Deed::Renew),
        2 => proptest::option::of(until).prop_map(|until| Deed::Bill(Payment::Paid(until))),
        1 => Just(Deed::Bill(Payment::Failed)),
        1 => Just(Deed::Bill(Payment::Refunded)),
    ]
}

/// Deeds, each some time after the one before: often moments, sometimes months.
fn history(deed: impl Strategy<Value = Deed>) -> impl Strategy<Value = Vec<(i64, Deed)>> {
    let wait = prop_oneof![0..DAY, 0..10 * DAY, 0..70 * DAY, (1..40_i64).prop_map(|days| days * DAY)];
    proptest::collection::vec((wait, deed), 0..14)
}

fn begin(catalogue: &Catalogue, plan: usize, trusted: bool) -> Subscription {
    let (of, plan) = catalogue.newest(PLANS[plan]).expect("a plan");
    Subscription::begin((of, plan), None, None, trusted, Timestamp::from_micros(START))
}

/// Does it to a subscription that is settled, as the use cases do; what is refused changes nothing.
fn act(s: &mut Subscription, catalogue: &Catalogue, deed: Deed, now: Timestamp) {
    let before = s.clone();
    let plan = |i: usize| catalogue.newest(PLANS[i]).expect("a plan");
    let done = match deed {
        Deed::Change(i, cycle, trusted) => s.change_plan(plan(i), cycle, trusted, now),
        Deed::Later(i, cycle) => s.change_plan_later(plan(i).0, plan(i).1, cycle),
        Deed::Cancel(at_period_end) => s.cancel(at_period_end, now),
        Deed::Resume => s.resume(catalogue, now),
        Deed::Pause => s.pause(now),
        Deed::Renew => s.renew(now),
        Deed::Bill(payment) => {
            s.bill(catalogue, payment, now, now);
            Ok(())
        }
    };
    if done.is_err() {
        assert_eq!(*s, before, "a refused {deed:?} left something behind");
    }
    // What is answered is how it stands: nothing is left for time to bring at once.
    let mut settled = s.clone();
    settled.settle(catalogue, now);
    assert_eq!(*s, settled, "{deed:?} left something unsettled");
}

fn works(s: &Subscription, now: Timestamp) -> bool {
    match s.status {
        SubscriptionStatus::Trialing | SubscriptionStatus::Active => true,
        SubscriptionStatus::PastDue => !s.is_overdue(now),
        SubscriptionStatus::Paused | SubscriptionStatus::Cancelled => false,
    }
}

/// How a tenant sees it: nothing of this changes between boundaries.
fn seen(s: &Subscription, now: Timestamp) -> (Subscription, bool) {
    (s.clone(), works(s, now))
}

/// Goes from boundary to boundary until `to`; the time for which it worked on a plan with a price.
fn walk(s: &mut Subscription, catalogue: &Catalogue, from: Timestamp, to: Timestamp) -> i64 {
    let (mut at, mut worked) = (from, 0);
    while at < to {
        let next = s.next_boundary(at).unwrap_or(to).min(to);
        assert!(next > at, "a boundary that has passed");
        if s.price > 0 && works(s, at) {
            worked += next.micros() - at.micros();
        }
        at = next;
        s.settle(catalogue, at);
    }
    worked
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn settling_step_by_step_is_settling_at_the_end(
        graces in [0..70_u16, 0..10_u16, 0..3_u16], trial in 1..40_u16, plan in 0..6_usize, trusted in any::<bool>(),
        deeds in history(any_deed()), looks in proptest::collection::vec(0..200 * DAY, 0..6),
    ) {
        let catalogue = catalogue(graces, trial);
        let mut s = begin(&catalogue, plan, trusted);
        let mut now = START;
        for (wait, deed) in deeds {
            now += wait;
            s.settle(&catalogue, Timestamp::from_micros(now));
            act(&mut s, &catalogue, deed, Timestamp::from_micros(now));
        }
        let end = Timestamp::from_micros(now + 400 * DAY);
        let mut once = s.clone();
        once.settle(&catalogue, end);
        let mut often = s.clone();
        let mut looks = looks;
        looks.sort_unstable();
        for look in looks {
            often.settle(&catalogue, Timestamp::from_micros(now + look));
        }
        often.settle(&catalogue, end);
        prop_assert_eq!(&often, &once);
        let mut walked = s;
        walked.settle(&catalogue, Timestamp::from_micros(now));
        walk(&mut walked, &catalogue, Timestamp::from_micros(now), end);
        prop_assert_eq!(&walked, &once);
        once.settle(&catalogue, end);
        prop_assert_eq!(&walked, &once, "settling twice");
    }

    #[test]
    fn nothing_changes_before_the_next_boundary_which_lies_ahead(
        graces in [0..70_u16, 0..10_u16, 0..3_u16], trial in 1..40_u16, plan in 0..6_usize, trusted in any::<bool>(),
        deeds in history(any_deed()), part in 0.0..1.0_f64,
    ) {
        let catalogue = catalogue(graces, trial);
        let mut s = begin(&catalogue, plan, trusted);
        let mut now = START;
        for (wait, deed) in deeds {
            now += wait;
            s.settle(&catalogue, Timestamp::from_micros(now));
            act(&mut s, &catalogue, deed, Timestamp::from_micros(now));
        }
        let at = Timestamp::from_micros(now);
        s.settle(&catalogue, at);
        let boundary = s.next_boundary(at);
        let last = boundary.map_or(now + 4000 * DAY, |at| at.micros() - 1);
        prop_assert!(last >= now);
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "some instant in between")]
        let between = Timestamp::from_micros(now + ((last - now) as f64 * part) as i64);
        for look in [between, Timestamp::from_micros(last)] {
            let mut later = s.clone();
            later.settle(&catalogue, look);
            prop_assert_eq!(seen(&later, look), seen(&s, at));
        }
        if let Some(boundary) = boundary {
            let mut then = s.clone();
            then.settle(&catalogue, boundary);
            prop_assert_ne!(seen(&then, boundary), seen(&s, at), "a boundary at which nothing happens");
        }
    }

    #[test]
    fn nobody_works_unpaid_for_longer_than_a_trial_and_one_grace(
        graces in [0..12_u16, 0..12_u16, 0..12_u16], trial in 1..20_u16, plan in 0..5_usize,
        deeds in history(of_tenant()),
    ) {
        let catalogue = catalogue(graces, trial);
        let mut s = begin(&catalogue, plan, false);
        let (mut now, mut worked) = (START, 0);
        for (wait, deed) in deeds {
            worked += walk(&mut s, &catalogue, Timestamp::from_micros(now), Timestamp::from_micros(now + wait));
            now += wait;
            act(&mut s, &catalogue, deed, Timestamp::from_micros(now));
            s.settle(&catalogue, Timestamp::from_micros(now));
        }
        worked += walk(&mut s, &catalogue, Timestamp::from_micros(now), Timestamp::from_micros(now + 1500 * DAY));
        let grace = i64::from(graces.into_iter().max().unwrap_or(0)) * DAY;
        prop_assert!(worked <= i64::from(trial) * DAY + grace, "worked {} days", worked / DAY);
    }

    #[test]
    fn what_is_paid_once_is_worth_its_money_and_no_more(
        graces in [0..12_u16, 0..12_u16, 0..12_u16], deeds in history(of_tenant()),
    ) {
        // A year of the cheap plan is paid: no way through the plans makes more of it, in money at each plan's price.
        let catalogue = catalogue(graces, 1);
        let mut s = begin(&catalogue, 2, false);
        let now = Timestamp::from_micros(START);
        s.change_plan(catalogue.newest("cheap").expect("a plan"), Some(Cycle::Year), true, now).expect("changes");
        s.bill(&catalogue, Payment::Paid(None), now, now);
        let (mut now, mut dear) = (START, 0);
        for (wait, deed) in deeds.into_iter().chain([(1500 * DAY, Deed::Resume)]) {
            let (mut at, to) = (Timestamp::from_micros(now), Timestamp::from_micros(now + wait));
            while at < to {
                let next = s.next_boundary(at).unwrap_or(to).min(to);
                if s.of.plan == "dear" && works(&s, at) {
                    dear += next.micros() - at.micros();
                }
                at = next;
                s.settle(&catalogue, at);
            }
            now += wait;
            act(&mut s, &catalogue, deed, at);
            s.settle(&catalogue, at);
        }
        // 1000 a year buys 6.1 days at 60000 a year; a grace period comes on top, and another one once the debt was paid.
        let grace = i64::from(graces.into_iter().max().unwrap_or(0)) * DAY;
        prop_assert!(dear <= 7 * DAY + 2 * grace, "{} days", dear / DAY);
    }

    #[test]
    fn after_any_history_a_payment_that_covers_now_makes_it_work(
        graces in [0..70_u16, 0..10_u16, 0..3_u16], trial in 1..40_u16, plan in 0..6_usize, trusted in any::<bool>(),
        deeds in history(any_deed()), says_until in any::<bool>(),
    ) {
        let catalogue = catalogue(graces, trial);
        let mut s = begin(&catalogue, plan, trusted);
        let mut now = START;
        for (wait, deed) in deeds {
            now += wait;
            s.settle(&catalogue, Timestamp::from_micros(now));
            act(&mut s, &catalogue, deed, Timestamp::from_micros(now));
        }
        let at = Timestamp::from_micros(now + 3 * DAY);
        s.settle(&catalogue, at);
        let until = says_until.then(|| at.after(TimeDelta::days(30)));
        prop_assert!(s.bill(&catalogue, Payment::Paid(until), at, at));
        if matches!(s.status, SubscriptionStatus::Cancelled | SubscriptionStatus::Paused) {
            // It stays as it is until somebody resumes it, and what was paid is there then.
            let later = at.after(TimeDelta::days(1));
            s.settle(&catalogue, later);
            let untold = s.price == 0 && s.ended_with_trial();
            s.resume(&catalogue, later).expect("resumes");
            s.settle(&catalogue, later);
            prop_assert!(works(&s, later) || untold, "{s:?}");
            prop_assert!(s.status != SubscriptionStatus::PastDue || untold, "{s:?}");
        } else {
            prop_assert!(works(&s, at) && s.status == SubscriptionStatus::Active, "{s:?}");
        }
    }

    #[test]
    fn a_pause_gives_no_time_away_and_takes_none(
        graces in [0..10_u16, 0..10_u16, 0..3_u16], trial in 5..40_u16, plan in 0..6_usize, paid in any::<bool>(),
        before in 0..4 * DAY, pauses in proptest::collection::vec((0..90 * DAY, 1..DAY), 1..5),
    ) {
        let catalogue = catalogue(graces, trial);
        let mut s = begin(&catalogue, plan, true);
        if paid {
            let now = Timestamp::from_micros(START);
            s.bill(&catalogue, Payment::Paid(None), now, now);
        }
        let horizon = 400 * DAY;
        let mut unpaused = s.clone();
        let whole = walk(&mut unpaused, &catalogue, Timestamp::from_micros(START), Timestamp::from_micros(START + horizon));
        let (mut now, mut worked, mut stood) = (START, 0, 0);
        for (length, wait) in std::iter::once((0, before)).chain(pauses) {
            act(&mut s, &catalogue, Deed::Pause, Timestamp::from_micros(now));
            if s.status == SubscriptionStatus::Paused {
                now += length;
                stood += length;
                s.settle(&catalogue, Timestamp::from_micros(now));
                prop_assert_eq!(s.next_boundary(Timestamp::from_micros(now)), None);
                act(&mut s, &catalogue, Deed::Resume, Timestamp::from_micros(now));
                s.settle(&catalogue, Timestamp::from_micros(now));
            }
            worked += walk(&mut s, &catalogue, Timestamp::from_micros(now), Timestamp::from_micros(now + wait));
            now += wait;
        }
        worked += walk(
            &mut s, &catalogue, Timestamp::from_micros(now), Timestamp::from_micros(START + stood + horizon),
        );
        prop_assert_eq!(worked, whole);
    }
}

#[test]
fn a_period_after_a_pause_is_a_whole_one() {
    let catalogue = catalogue([3, 3, 3], 1);
    let mut s = begin(&catalogue, 2, true);
    let at = |days: i64| Timestamp::from_micros(START + days * DAY);
    s.bill(&catalogue, Payment::Paid(Some(at(400))), at(0), at(0));
    s.settle(&catalogue, at(80));
    s.pause(at(80)).expect("pauses");
    s.resume(&catalogue, at(141)).expect("resumes");
    for day in 141..400 {
        s.settle(&catalogue, at(day));
        let (start, end) = (s.period_start.expect("a period"), s.period_end.expect("a period"));
        assert!((28..=31).contains(&end.since(start).num_days()), "day {day}: {start} to {end}");
    }
}

#[test]
fn what_is_given_back_or_fails_while_it_stands_still_is_owed_when_it_goes_on() {
    let catalogue = catalogue([3, 3, 3], 1);
    let at = |days: i64| Timestamp::from_micros(START + days * DAY);
    for payment in [Payment::Refunded, Payment::Failed] {
        let mut s = begin(&catalogue, 2, true);
        s.bill(&catalogue, Payment::Paid(None), at(0), at(0));
        s.pause(at(5)).expect("pauses");
        assert!(s.bill(&catalogue, payment, at(6), at(6)));
        s.resume(&catalogue, at(50)).expect("resumes");
        s.settle(&catalogue, at(50));
        assert_eq!(s.status, SubscriptionStatus::PastDue, "{payment:?}");
    }
}

#[test]
fn a_trial_that_is_over_is_not_begun_anew_by_cancelling() {
    let catalogue = catalogue([3, 3, 3], 10);
    let at = |days: i64| Timestamp::from_micros(START + days * DAY);
    let mut s = begin(&catalogue, 5, false);
    s.settle(&catalogue, at(11));
    assert!(s.is_overdue(at(11)) && s.is_trial_over());
    s.cancel(false, at(11)).expect("cancels");
    s.resume(&catalogue, at(12)).expect("resumes");
    assert!(s.is_overdue(at(12)));
    // A plan that may be chosen opens it, and is not taken back by the same way.
    s.change_plan(catalogue.newest("free").expect("a plan"), None, false, at(13)).expect("changes");
    s.cancel(false, at(14)).expect("cancels");
    s.resume(&catalogue, at(15)).expect("resumes");
    assert_eq!(s.status, SubscriptionStatus::Active);
}

#[test]
fn a_clock_that_is_ahead_outdates_nothing() {
    let catalogue = catalogue([3, 3, 3], 10);
    let at = |days: i64| Timestamp::from_micros(START + days * DAY);
    let mut s = begin(&catalogue, 2, true);
    assert!(s.bill(&catalogue, Payment::Failed, at(1), at(0)));
    assert!(s.bill(&catalogue, Payment::Paid(None), at(0), at(0)));
    assert_eq!(s.status, SubscriptionStatus::Active);
}
