//! Roll-ups say what the events say, in every time zone.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Timelike, Utc};
use chrono_tz::TZ_VARIANTS;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const ALL: [Granularity; 4] = [Granularity::QuarterHour, Granularity::Hour, Granularity::Day, Granularity::Month];
const HOUR: i64 = 4 * QUARTER;
const DAY: i64 = 24 * HOUR;
/// 1990 to 2060.
const YEARS: std::ops::Range<i64> = 631_152_000_000_000..2_840_140_800_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn utc(text: &str) -> Timestamp {
    text.parse::<DateTime<Utc>>().unwrap().into()
}

/// What a zone's clocks show.
fn shown(zone: Tz, micros: i64) -> DateTime<Tz> {
    at(micros).utc().with_timezone(&zone)
}

/// The latest day that the clocks have shown: of the hour before midnight that is shown again when they are put back, this is
/// the day after.
fn newest_day(zone: Tz, micros: i64) -> NaiveDate {
    let minutes =
        (0..=180).step_by(5).map(|minutes| shown(zone, micros - micros.rem_euclid(QUARTER) - minutes * 60_000_000));
    minutes.map(|shown| shown.date_naive()).chain([shown(zone, micros).date_naive()]).max().unwrap()
}

/// Which span an instant belongs to by what a zone's clocks show: no two spans have the same.
fn label(granularity: Granularity, zone: Tz, micros: i64) -> String {
    let clock = shown(zone, micros);
    match granularity {
        Granularity::QuarterHour => {
            (micros - i64::from(clock.minute() % 15) * 60_000_000).div_euclid(60_000_000).to_string()
        }
        // The same hour is shown twice when clocks are put back; these are two.
        Granularity::Hour => (micros - i64::from(clock.minute()) * 60_000_000).div_euclid(60_000_000).to_string(),
        Granularity::Day => newest_day(zone, micros).to_string(),
        Granularity::Month => newest_day(zone, micros).format("%Y-%m").to_string(),
    }
}

/// An event: when it happened, and how much.
fn events() -> impl Strategy<Value = (i64, Vec<(i64, i64)>)> {
    (YEARS, select(&[DAY, 10 * DAY, 200 * DAY][..])).prop_flat_map(|(from, length)| {
        let events = prop::collection::vec((from..from + length, -1_000..1_000_000_i64), 1..80);
        // In the order in which they arrive, which is none.
        (Just(from), events)
    })
}

/// The quarters, kept as they are written: each event added to its own.
fn rolled_up(events: &[(i64, i64)]) -> BTreeMap<Bucket, i64> {
    let mut rows = BTreeMap::new();
    for (micros, amount) in events {
        *rows.entry(Bucket::of(at(*micros))).or_default() += amount;
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn roll_ups_say_what_a_recount_of_the_events_by_local_time_says(
        (from, events) in events(), zone in select(&TZ_VARIANTS[..]), order in any::<bool>(),
    ) {
        let mut rows: Vec<(Bucket, i64)> = rolled_up(&events).into_iter().collect();
        if order {
            rows.reverse();
        }
        let to = events.iter().map(|(micros, _)| micros + 1).max().unwrap_or(from);
        for granularity in ALL {
            let mut recount: BTreeMap<String, i64> = BTreeMap::new();
            for (micros, amount) in &events {
                *recount.entry(label(granularity, zone, *micros)).or_default() += amount;
            }
            let spans: Vec<Period> = spans(granularity, zone, at(from), at(to)).collect();
            let sums = fold(&spans, rows.iter().copied());
            let told = spans.iter().zip(sums).map(|(span, sum)| (label(granularity, zone, span.start.micros()), sum));
            let told: Vec<(String, i64)> = told.collect();
            let names: BTreeMap<String, i64> = told.iter().cloned().collect();
            prop_assert_eq!(names.len(), told.len(), "{:?} {}: no span is told twice", granularity, zone);
            for (name, sum) in &told {
                prop_assert_eq!(*sum, recount.remove(name).unwrap_or(0), "{:?} {} {}", granularity, zone, name);
            }
            prop_assert!(recount.is_empty(), "{granularity:?} {zone}: not told: {recount:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spans_are_whole_buckets_without_gap_or_overlap_in_every_zone(from in YEARS, length in 1..40 * DAY) {
        let to = from + length;
        let (first, last) = (Bucket::of(at(from)).start(), Bucket::of(at(to - 1)).next().start());
        for (n, zone) in TZ_VARIANTS.into_iter().enumerate() {
            // Each zone once a case, and every case another one with each granularity.
            let granularity = ALL[(n + usize::try_from(length).unwrap()) % 4];
            let few: Vec<Period> = spans(granularity, zone, at(from), at(to)).take(150).collect();
            prop_assert_eq!(few[0].start, first);
            for pair in few.windows(2) {
                prop_assert_eq!(pair[0].end, pair[1].start, "{:?} {}", granularity, zone);
            }
            for span in &few {
                prop_assert!(span.start < span.end && Bucket::of(span.start).start() == span.start);
                // Nothing was cut but the first and the last: quarters are not split between two days.
                let cut = span.start == first || span.end == last;
                let longest = [QUARTER, HOUR, 49 * HOUR, 32 * DAY][(n + usize::try_from(length).unwrap()) % 4];
                prop_assert!(span.end.micros() - span.start.micros() <= longest, "{:?} {}", granularity, zone);
                if !cut && matches!(granularity, Granularity::Day | Granularity::Month) {
                    let kind = if granularity == Granularity::Day { MetricPeriod::Day } else { MetricPeriod::Month };
                    let calendar = Calendar { zone, anchor: span.start, cycle: Cycle::Month };
                    prop_assert_eq!(Period::at(kind, &calendar, span.start), *span, "{}: as counters have it", zone);
                }
            }
            prop_assert!(few.len() == 150 || few[few.len() - 1].end == last);
        }
    }

    #[test]
    fn no_question_breaks_or_has_no_end(from in any::<i64>(), to in any::<i64>(), zone in select(&TZ_VARIANTS[..])) {
        for granularity in ALL {
            for (from, to) in [(from, to), (i64::MIN, to), (from, i64::MAX), (from, from), (253_402_200_000_000_000, i64::MAX)] {
                let few: Vec<Period> = spans(granularity, zone, at(from), at(to)).take(60).collect();
                prop_assert!(few.iter().all(|span| span.start < span.end));
            }
            // The last day of all.
            prop_assert!(spans(granularity, zone, at(253_402_200_000_000_000), at(i64::MAX)).count() <= 64);
        }
    }
}

fn told(granularity: Granularity, zone: Tz, from: &str, to: &str) -> Vec<String> {
    let spans = spans(granularity, zone, utc(from), utc(to));
    spans.map(|Period { start, end }| format!("{} {}", &start.to_string()[11..16], &end.to_string()[11..16])).collect()
}

#[test]
fn hours_are_those_that_the_clocks_of_the_zone_show() {
    let kathmandu = told(Granularity::Hour, Tz::Asia__Kathmandu, "2026-05-05T00:20:00Z", "2026-05-05T02:16:00Z");
    assert_eq!(
        kathmandu,
        ["00:15 01:15", "01:15 02:15", "02:15 02:30"],
        "45 minutes to the full hour, and cut at both ends"
    );
    // Clocks of Lord Howe are put back from 02:00 to 01:30.
    let howe = told(Granularity::Hour, Tz::Australia__Lord_Howe, "2026-04-04T14:00:00Z", "2026-04-04T16:30:00Z");
    assert_eq!(howe, ["14:00 15:00", "15:00 15:30", "15:30 16:30"]);
    // Those of Berlin by an hour, which is there twice.
    let berlin = told(Granularity::Hour, Tz::Europe__Berlin, "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z");
    assert_eq!(berlin, ["00:00 01:00", "01:00 02:00"]);
}

#[test]
fn days_have_23_or_25_hours_when_clocks_change() {
    let hours = |from: &str, to: &str| {
        let [day] = spans(Granularity::Day, Tz::Europe__Berlin, utc(from), utc(to)).collect::<Vec<_>>()[..] else {
            panic!("one day");
        };
        day.end.since(day.start).num_hours()
    };
    assert_eq!(hours("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 23);
    assert_eq!(hours("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 25);
}

#[test]
fn sums_beyond_64_bits_stop_at_the_last_number() {
    let span = Period { start: at(0), end: at(QUARTER) };
    let bucket = Bucket::of(at(1));
    assert_eq!(fold(&[span], [(bucket, i64::MAX), (bucket, i64::MAX), (bucket, -5)]), [i64::MAX]);
    assert_eq!(
        fold(&[span], [(bucket, i64::MAX), (bucket, i64::MAX), (bucket, -i64::MAX), (bucket, -5)]),
        [i64::MAX - 5]
    );
    assert_eq!(fold(&[span], [(Bucket::of(at(-1)), 7), (Bucket::of(at(QUARTER)), 7)]), [0], "in none of them");
}
