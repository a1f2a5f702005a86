//! What holds of all periods, in every time zone, whatever changes.

use std::cell::Cell;

use chrono::{NaiveDateTime, Offset};
use chrono_tz::TZ_VARIANTS;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const DAY: i64 = 86_400_000_000;
/// 1990 to 2060.
const YEARS: std::ops::Range<i64> = 631_152_000_000_000..2_840_140_800_000_000;

const CALENDAR: [MetricPeriod; 4] = [MetricPeriod::Day, MetricPeriod::Week, MetricPeriod::Month, MetricPeriod::Year];

fn few(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn before(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(at.micros() - micros)
}

/// What the clocks of a zone show, and how far they are from UTC.
fn shown(zone: Tz, at: Timestamp) -> (NaiveDateTime, i32) {
    let local = at.utc().with_timezone(&zone);
    (local.naive_local(), local.offset().fix().local_minus_utc())
}

/// The day with which the calendar's period begins that has this day.
fn opens(kind: MetricPeriod, day: NaiveDate) -> NaiveDate {
    match kind {
        MetricPeriod::Week => day.week(chrono::Weekday::Mon).first_day(),
        MetricPeriod::Month => NaiveDate::from_ymd_opt(day.year(), day.month(), 1).unwrap(),
        MetricPeriod::Year => NaiveDate::from_ymd_opt(day.year(), 1, 1).unwrap(),
        _ => day,
    }
}

/// Periods hold their instants and follow each other without gap or overlap.
fn follow(kind: MetricPeriod, calendar: &Calendar, now: Timestamp) -> Result<Period, TestCaseError> {
    let at = |now| Period::at(kind, calendar, now);
    let this = at(now);
    prop_assert!(this.holds(now), "{kind:?} {calendar:?} {now}: {this:?}");
    prop_assert_eq!(at(this.start), this, "{:?} {:?} {}", kind, calendar, now);
    prop_assert_eq!(at(before(this.end, 1)), this, "{:?} {:?} {}", kind, calendar, now);
    prop_assert_eq!(at(this.end).start, this.end, "{:?} {:?} {}", kind, calendar, now);
    prop_assert_eq!(at(before(this.start, 1)).end, this.start, "{:?} {:?} {}", kind, calendar, now);
    Ok(this)
}

/// Periods of the calendar begin with a day, as the zone's clocks show it.
fn natural(kind: MetricPeriod, calendar: &Calendar, now: Timestamp) -> Result<(), TestCaseError> {
    let zone = calendar.zone;
    let this = follow(kind, calendar, now)?;
    let (first, offset) = shown(zone, this.start);
    let (last, offset_before) = shown(zone, before(this.start, 1));
    let opening = opens(kind, first.date());
    let says = format!("{kind:?} {zone} {now}: from {first}, before that {last}");
    prop_assert!(last.date() < opening, "{says}");
    prop_assert!(first == opening.and_time(NaiveTime::MIN) || offset != offset_before, "{says}");
    prop_assert_eq!(opens(kind, shown(zone, before(this.end, 1)).0.date()), opening, "{}", says);
    // The clock has not shown the day before: of two midnights it is the earlier one.
    for quarters in 1..=12 {
        prop_assert!(shown(zone, before(this.start, quarters * DAY / 96)).0.date() < opening, "{says}");
    }
    Ok(())
}

fn in_zone(zone: Tz) -> Calendar {
    Calendar { zone, anchor: Timestamp::from_micros(0), cycle: Cycle::Month }
}

/// The instants within a year at which a zone's clocks are put forward or back.
fn changes(zone: Tz, from: i64) -> Vec<Timestamp> {
    let offset = |at: i64| shown(zone, Timestamp::from_micros(at)).1;
    let steps = (0..27).map(|n| from + n * 14 * DAY).map(|at| (at, at + 14 * DAY));
    let changed = steps.filter(|(a, b)| offset(*a) != offset(*b));
    changed
        .map(|(mut a, mut b)| {
            while b - a > 1 {
                let middle = a + (b - a) / 2;
                if offset(middle) == offset(a) { a = middle } else { b = middle }
            }
            Timestamp::from_micros(b)
        })
        .collect()
}

proptest! {
    #![proptest_config(few(30))]

    #[test]
    fn days_weeks_months_and_years_follow_the_clocks_of_every_zone(instants in prop::array::uniform7(YEARS)) {
        for (n, zone) in TZ_VARIANTS.into_iter().enumerate() {
            let now = Timestamp::from_micros(instants[n % 7]);
            for kind in CALENDAR {
                natural(kind, &in_zone(zone), now)?;
            }
        }
    }
}

proptest! {
    #![proptest_config(few(25))]

    #[test]
    fn and_so_they_do_when_clocks_are_put_forward_or_back(starts in prop::array::uniform7(YEARS), near in -DAY..DAY) {
        let found = Cell::new(0);
        for (n, zone) in TZ_VARIANTS.into_iter().enumerate() {
            for change in changes(zone, starts[n % 7]) {
                found.set(found.get() + 1);
                for now in [change, before(change, 1), before(change, near)] {
                    natural(MetricPeriod::Day, &in_zone(zone), now)?;
                }
            }
        }
        prop_assert!(found.get() > 100);
    }
}

/// Anchors, half of them on days that not every month has.
fn anchor() -> impl Strategy<Value = Timestamp> {
    let late =
        (1990..2060, select(&[1_u32, 3, 5, 8, 12][..]), 29..=31_u32, 0..DAY).prop_map(|(year, month, day, micros)| {
            let midnight = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_time(NaiveTime::MIN).and_utc();
            Timestamp::from(midnight).after(TimeDelta::microseconds(micros))
        });
    let leap = (497..514, 0..DAY).prop_map(|(year, micros)| {
        let midnight = NaiveDate::from_ymd_opt(year * 4, 2, 29).unwrap().and_time(NaiveTime::MIN).and_utc();
        Timestamp::from(midnight).after(TimeDelta::microseconds(micros))
    });
    prop_oneof![4 => late, 1 => leap, 5 => YEARS.prop_map(Timestamp::from_micros)]
}

fn cycle() -> impl Strategy<Value = Cycle> {
    select(&[Cycle::Month, Cycle::Year][..])
}

proptest! {
    #[test]
    fn billing_periods_are_whole_cycles_from_the_anchor(anchor in anchor(), cycle in cycle(), now in YEARS) {
        let calendar = Calendar { zone: Tz::Asia__Kathmandu, anchor, cycle };
        let now = Timestamp::from_micros(now);
        let this = follow(MetricPeriod::Billing, &calendar, now)?;
        for edge in [this.start, this.end] {
            let (a, e) = (anchor.utc(), edge.utc());
            prop_assert_eq!(e.time(), a.time());
            let shorter = (e.date_naive() + Days::new(1)).day() == 1;
            prop_assert!(e.day() == a.day() || (e.day() < a.day() && shorter), "{e} of {a}");
            prop_assert!(cycle == Cycle::Month || e.month() == a.month(), "{e} of {a}");
        }
        let days = this.end.since(this.start).num_days();
        let lengths = if cycle == Cycle::Month { 28..=31 } else { 365..=366 };
        prop_assert!(lengths.contains(&days), "{days} days");
        // What is counted together is what is paid together.
        prop_assert!(now < anchor || next_cycle(anchor, cycle, now) == this.end);
        prop_assert_eq!(next_cycle(anchor, cycle, anchor), Period::at(MetricPeriod::Billing, &calendar, anchor).end);
    }

    #[test]
    fn cycles_follow_their_anchor_without_gap(
        anchor in 0_i64..4_000_000_000_000_000, ahead in 0_i64..2_000_000_000_000_000, cycle in cycle(),
    ) {
        let (anchor, at) = (Timestamp::from_micros(anchor), Timestamp::from_micros(anchor + ahead));
        let next = next_cycle(anchor, cycle, at);
        prop_assert!(next > at);
        // Nothing lies between: the instant before leads to the same end.
        prop_assert_eq!(next_cycle(anchor, cycle, before(next, 1)), next);
        let longest = if cycle == Cycle::Year { 366 } else { 31 };
        prop_assert!(next.since(at) <= TimeDelta::days(longest));
        // The day of the month is the anchor's, or the last one of a shorter month.
        let (a, n) = (anchor.utc().date_naive(), next.utc().date_naive());
        prop_assert!(n.day() == a.day() || (n.day() < a.day() && (n + Days::new(1)).day() == 1));
    }

    #[test]
    fn every_instant_is_in_its_month_and_months_follow_without_gap(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
        let now = Timestamp::from_micros(micros);
        let month = Period::month_of(now);
        prop_assert!(month.holds(now));
        prop_assert_eq!(Period::month_of(month.end).start, month.end);
        prop_assert_eq!(Period::month_of(before(month.end, 1)), month);
    }

    #[test]
    fn no_instant_has_no_period(now in any::<i64>(), anchor in any::<i64>(), cycle in cycle(), zone in select(&TZ_VARIANTS[..])) {
        let calendar = Calendar { zone, anchor: Timestamp::from_micros(anchor), cycle };
        for kind in CALENDAR.into_iter().chain([MetricPeriod::Billing, MetricPeriod::Lifetime]) {
            let this = Period::at(kind, &calendar, Timestamp::from_micros(now));
            // Even where it does not hold the instant, what follows is a period.
            let next = Period::following(Some(this), kind, &calendar, Timestamp::from_micros(now));
            prop_assert_eq!(next, this);
        }
    }
}

/// What happens between two uses: time passes, or the clock is put back, and anything that draws periods changes.
#[derive(Debug, Clone)]
struct Step {
    passes: i64,
    zone: Option<Tz>,
    kind: Option<MetricPeriod>,
    anchor: Option<Timestamp>,
    cycle: Option<Cycle>,
}

fn step() -> impl Strategy<Value = Step> {
    let passes = prop_oneof![
        4 => 0..DAY / 12, 4 => 0..3 * DAY, 2 => 0..90 * DAY, 1 => 0..800 * DAY, 1 => -3 * DAY..0, 1 => -400 * DAY..0
    ];
    let kinds = [CALENDAR.as_slice(), &[MetricPeriod::Billing; 3], &[MetricPeriod::Day; 3]].concat();
    let kind = prop_oneof![30 => select(kinds), 1 => Just(MetricPeriod::Lifetime)];
    let often = prop::option::weighted::<proptest::sample::Select<Tz>>;
    (
        passes,
        often(0.4, select(&TZ_VARIANTS[..])),
        prop::option::weighted(0.3, kind),
        prop::option::weighted(0.3, anchor()),
        prop::option::weighted(0.2, cycle()),
    )
        .prop_map(|(passes, zone, kind, anchor, cycle)| Step { passes, zone, kind, anchor, cycle })
}

proptest! {
    #![proptest_config(few(2_000))]

    #[test]
    fn whatever_changes_nothing_is_counted_twice_or_nowhere(
        begin in YEARS, steps in prop::collection::vec(step(), 1..60),
    ) {
        let (mut now, mut kind) = (begin, MetricPeriod::Month);
        let mut calendar = Calendar { zone: Tz::UTC, anchor: Timestamp::from_micros(begin), cycle: Cycle::Month };
        let (mut opened, mut used): (Vec<Period>, Vec<Timestamp>) = (Vec::new(), Vec::new());
        for step in steps {
            now += step.passes;
            kind = step.kind.unwrap_or(kind);
            calendar.zone = step.zone.unwrap_or(calendar.zone);
            calendar.anchor = step.anchor.unwrap_or(calendar.anchor);
            calendar.cycle = step.cycle.unwrap_or(calendar.cycle);
            let at = Timestamp::from_micros(now);
            let natural = Period::at(kind, &calendar, at);
            let last = opened.last().copied();
            let this = Period::following(last, kind, &calendar, at);
            prop_assert!(this.start < this.end);
            match last {
                Some(last) if last == this => prop_assert!(at < last.end, "it is over"),
                Some(last) => {
                    prop_assert!(!last.holds(at) && at >= last.end, "{last:?} was open at {at}");
                    prop_assert!(this.start == last.end.max(natural.start), "from {last:?} to {this:?}");
                    let (left, whole) = (natural.end.since(this.start), natural.end.since(natural.start));
                    // What has changed draws the next one; no half of one has a limit of its own.
                    let joined = Period::at(kind, &calendar, natural.end).end;
                    prop_assert_eq!(this.end, if left * 2 < whole { joined } else { natural.end });
                    opened.push(this);
                }
                None => opened.push(this),
            }
            // Where the clock was not put back, usage is counted in the period that holds it.
            if last.is_none_or(|last| at >= last.start) {
                prop_assert!(this.holds(at));
                used.push(at);
            }
        }
        for pair in opened.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "{pair:?}");
        }
        for at in used {
            prop_assert_eq!(opened.iter().filter(|period| period.holds(at)).count(), 1, "{}", at);
        }
    }
}

fn utc(text: &str) -> Timestamp {
    text.parse::<DateTime<Utc>>().unwrap().into()
}

fn day(zone: Tz, now: &str) -> (String, String) {
    let Period { start, end } = Period::at(MetricPeriod::Day, &in_zone(zone), utc(now));
    (start.to_string(), end.to_string())
}

#[test]
fn a_day_without_midnight_begins_with_its_first_instant() {
    // 2018-11-04 went from 23:59 to 01:00.
    let expected = ("2018-11-04T03:00:00Z".to_owned(), "2018-11-05T02:00:00Z".to_owned());
    assert_eq!(day(Tz::America__Sao_Paulo, "2018-11-04T12:00:00Z"), expected);
}

#[test]
fn a_day_with_two_midnights_begins_with_the_earlier_one() {
    // 2019-11-03 in Havana: 01:00 became 00:00. 2010-11-07 in St. John's: 00:01 became 23:01 of the day before.
    let havana = ("2019-11-03T04:00:00Z".to_owned(), "2019-11-04T05:00:00Z".to_owned());
    assert_eq!(day(Tz::America__Havana, "2019-11-03T05:30:00Z"), havana);
    let st_johns = ("2010-11-07T02:30:00Z".to_owned(), "2010-11-08T03:30:00Z".to_owned());
    assert_eq!(day(Tz::America__St_Johns, "2010-11-07T02:45:00Z"), st_johns);
}

#[test]
fn a_day_that_a_zone_leaves_out_is_none() {
    // Samoa had no 30 December 2011, Kiritimati no 31 December 1994, nor therefore a last day of that year but the 30th.
    let last = ("2011-12-29T10:00:00Z".to_owned(), "2011-12-30T10:00:00Z".to_owned());
    assert_eq!(day(Tz::Pacific__Apia, "2011-12-30T09:59:59Z"), last);
    let next = ("2011-12-30T10:00:00Z".to_owned(), "2011-12-31T10:00:00Z".to_owned());
    assert_eq!(day(Tz::Pacific__Apia, "2011-12-30T10:00:00Z"), next);
    let year = Period::at(MetricPeriod::Year, &in_zone(Tz::Pacific__Kiritimati), utc("1995-06-01T00:00:00Z"));
    assert_eq!(year.start, utc("1994-12-31T10:00:00Z"));
}

#[test]
fn a_change_of_zone_draws_the_next_day_and_not_this_one() {
    let kiritimati = Period::at(MetricPeriod::Day, &in_zone(Tz::Pacific__Kiritimati), utc("2026-05-05T09:00:00Z"));
    assert_eq!(kiritimati.end, utc("2026-05-05T10:00:00Z"));
    let follows = |now| Period::following(Some(kiritimati), MetricPeriod::Day, &in_zone(Tz::UTC), utc(now));
    assert_eq!(follows("2026-05-05T09:59:59Z"), kiritimati);
    let cut = Period { start: kiritimati.end, end: utc("2026-05-06T00:00:00Z") };
    assert_eq!(follows("2026-05-05T10:00:00Z"), cut);
    assert_eq!(follows("2026-05-04T00:00:00Z"), kiritimati, "the clock was put back");
    let later = Period { start: utc("2026-05-07T00:00:00Z"), end: utc("2026-05-08T00:00:00Z") };
    assert_eq!(follows("2026-05-07T12:00:00Z"), later);
}

#[test]
fn a_remainder_of_less_than_half_a_day_is_no_day() {
    let utc_day = Period::at(MetricPeriod::Day, &in_zone(Tz::UTC), utc("2026-05-05T09:00:00Z"));
    let follows = |zone| Period::following(Some(utc_day), MetricPeriod::Day, &in_zone(zone), utc_day.end);
    // A day of Dakar is one of UTC; Tokyo's ends 15 hours after that began, Los Angeles' after 7.
    let ends = [Tz::Africa__Dakar, Tz::Asia__Tokyo, Tz::America__Los_Angeles].map(|zone| follows(zone).end.to_string());
    assert_eq!(ends, ["2026-05-07T00:00:00Z", "2026-05-06T15:00:00Z", "2026-05-07T07:00:00Z"]);
}

#[test]
fn all_time_is_one_period() {
    let calendar = in_zone(Tz::Europe__Berlin);
    let all = |now| Period::at(MetricPeriod::Lifetime, &calendar, utc(now));
    assert_eq!(all("1970-01-01T00:00:00Z"), all("2999-01-01T00:00:00Z"));
    assert_eq!((all("1970-01-01T00:00:00Z").start, all("1970-01-01T00:00:00Z").end), (DAWN, FAR));
    assert_eq!((DAWN, FAR), (utc("0001-01-01T00:00:00Z"), utc("9999-12-31T00:00:00Z")));
}
