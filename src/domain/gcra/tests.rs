//! No more is admitted than may be, and no less.

use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + micros)
}

/// Rates and bursts of all sizes, up to the largest.
fn rate() -> impl Strategy<Value = Rate> {
    let number = || prop_oneof![1..10_i64, 1..10_000_i64, 1..=MAX_AMOUNT, Just(MAX_AMOUNT)];
    (number(), number()).prop_map(|(per_minute, burst)| Rate { per_minute, burst })
}

/// A part of a number, from one to somewhat more than all of it.
fn part(whole: i64, part: u16) -> i64 {
    (i128::from(whole) * i128::from(part) / 60_000).max(1).try_into().unwrap()
}

/// How much time passes: often none, mostly as much as some of the burst takes to come back.
fn passes() -> impl Strategy<Value = i128> {
    prop_oneof![Just(0), 0..UNIT / 100, 0..UNIT, 0..3 * UNIT]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_holds_more_than_the_burst_and_what_came_back(
        rates in prop::array::uniform2(rate()), steps in prop::collection::vec((passes(), any::<u16>(), 0..20_u8), 1..80),
    ) {
        let (mut gcra, mut now, mut newest, mut rate) = (Gcra::UNUSED, 0, i64::MIN, rates[0]);
        let mut admitted: Vec<(i64, i64)> = Vec::new();
        for (passes, amount, odd) in steps {
            // Now and then the limit changes, or a request arrives that others have overtaken.
            rate = if odd == 0 { rates[usize::from(rate == rates[0])] } else { rate };
            now += i64::try_from(passes * i128::from(rate.burst) / i128::from(rate.per_minute)).unwrap_or(SECOND).min(600 * SECOND);
            let late = if odd == 1 { now - i64::from(amount) } else { now };
            newest = newest.max(late);
            let amount = part(rate.burst, amount);
            let before = gcra;
            let said = gcra.peek(rate, Share::WHOLE, amount, at(late));
            prop_assert_eq!(gcra, before, "looking charges nothing");
            let room = gcra.room(rate, Share::WHOLE, at(late));
            prop_assert_eq!(gcra.decide(rate, Share::WHOLE, amount, at(late)), said);
            prop_assert_eq!(said.is_ok(), amount <= room.remaining);
            if said.is_ok() {
                admitted.push((newest, amount));
            }
        }
        let (burst, fastest) = (rates[0].burst.max(rates[1].burst), rates[0].per_minute.max(rates[1].per_minute));
        for from in 0..admitted.len() {
            let mut sum = 0;
            for (time, amount) in &admitted[from..] {
                sum += i128::from(*amount) * UNIT;
                let back = i128::from(time - admitted[from].0) * i128::from(fastest);
                prop_assert!(sum <= i128::from(burst) * UNIT + back, "{} at once and {back} back", burst);
            }
        }
    }

    #[test]
    fn who_waits_as_long_as_is_said_gets_all_of_the_rate(
        rate in rate(), of in 1..20_u32, amounts in prop::collection::vec(1..30_000_u16, 1..60),
    ) {
        // A burst that does not come back within a microsecond: what is more is not saved up.
        let burst = rate.burst.max(rate.per_minute / 20_000_000).max(2 * i64::from(of)).min(MAX_AMOUNT);
        let (rate, share) = (Rate { burst, ..rate }, Share::equal(of));
        let (mut gcra, mut now, mut sum) = (Gcra::UNUSED, at(0), 0);
        for amount in amounts {
            let amount = (part(rate.burst, amount) / i64::from(of)).max(1);
            sum += i128::from(amount) * UNIT * i128::from(of);
            if let Err(wait) = gcra.peek(rate, share, amount, now) {
                let TooFast::Wait(wait) = wait else { panic!("{wait:?}") };
                prop_assert!(wait > TimeDelta::zero());
                if wait > TimeDelta::days(36_500) {
                    break;
                }
                let early = now.after(wait - TimeDelta::microseconds(1));
                prop_assert!(gcra.decide(rate, share, amount, early).is_err(), "a microsecond too early");
                now = now.after(wait);
            }
            prop_assert!(gcra.decide(rate, share, amount, now).is_ok(), "{amount} of {rate:?}");
            // To the microsecond, however many came before: there is no drift.
            let lacking = (sum - rate.whole()).max(0);
            let due = (lacking + i128::from(rate.per_minute) - 1) / i128::from(rate.per_minute);
            prop_assert_eq!(i128::from(now.micros() - at(0).micros()), due);
        }
    }

    #[test]
    fn what_remains_is_what_is_admitted_now(burst in 0..60_i64, per_minute in 0..60_i64, of in 1..90_u32, used in 0..60_i64) {
        let (rate, share, mut gcra) = (Rate { per_minute, burst }, Share::equal(of), Gcra::UNUSED);
        let _ = gcra.decide(rate, share, used, at(0));
        let now = at(700_000);
        let room = gcra.room(rate, share, now);
        for left in (0..room.remaining).rev() {
            prop_assert_eq!(gcra.decide(rate, share, 1, now).map(|room| room.remaining), Ok(left));
        }
        prop_assert!(gcra.decide(rate, share, 1, now).is_err());
        let full_at = gcra.room(rate, share, now).full_at;
        let remaining = |at| gcra.room(rate, share, at).remaining;
        if per_minute > 0 && burst > 0 {
            prop_assert_eq!(remaining(full_at), (burst / i64::from(of)).max(1));
            prop_assert_eq!(gcra.as_of(rate, full_at).used, 0);
            prop_assert!(gcra.as_of(rate, full_at.after(TimeDelta::microseconds(-1))).used > 0, "not earlier");
        }
    }

    #[test]
    fn what_is_given_back_at_once_was_never_used(
        rate in rate(), of in 1..20_u32, used in prop::collection::vec((passes(), any::<u16>()), 0..10), amount in any::<u16>(),
    ) {
        let (share, mut gcra, mut now) = (Share::equal(of), Gcra::UNUSED, at(0));
        for (passes, amount) in used {
            let micros = i64::try_from(passes * i128::from(rate.burst) / i128::from(rate.per_minute)).unwrap_or(SECOND);
            now = now.after(TimeDelta::microseconds(micros.min(600 * SECOND)));
            let _ = gcra.decide(rate, share, part(rate.burst, amount), now);
        }
        let (before, amount) = (gcra.as_of(rate, now), part(rate.burst, amount));
        if gcra.decide(rate, share, amount, now).is_ok() {
            gcra.give_back(rate, share, amount, now, now);
        }
        prop_assert_eq!(gcra, before);
    }

    #[test]
    fn what_is_given_back_late_takes_nothing_from_others(
        rate in (1..200_i64, 1..60_i64), of in 1..4_u32, steps in prop::collection::vec((0..3_u8, 0..20 * SECOND, 1..20_i64), 1..60),
    ) {
        let (rate, share) = (Rate { per_minute: rate.0, burst: rate.1 }, Share::equal(of));
        // Two of the same: one never sees what is given back in the end.
        let (mut with, mut without, mut now, mut open) = (Gcra::UNUSED, Gcra::UNUSED, at(0), Vec::new());
        for (what, passes, amount) in steps {
            now = now.after(TimeDelta::microseconds(passes));
            match what {
                0 if with.decide(rate, share, amount, now).is_ok() => open.push((amount, now)),
                1 if with.decide(rate, share, amount, now).is_ok() => {
                    prop_assert!(without.decide(rate, share, amount, now).is_ok(), "there is no less room without");
                }
                _ => {
                    if let Some((amount, then)) = open.pop() {
                        let before = with.as_of(rate, now).used;
                        with.give_back(rate, share, amount, then, now);
                        prop_assert!(with.used <= before, "nothing is charged by it");
                        prop_assert!(before - with.used <= share.cost(amount), "no more than it was");
                    }
                }
            }
            prop_assert!(with.as_of(rate, now).used >= without.as_of(rate, now).used, "somebody else's use was forgotten");
        }
    }

    #[test]
    fn odd_numbers_do_no_harm(
        numbers in prop::array::uniform3(any::<i64>()), part in any::<u32>(), of in any::<u32>(), times in prop::array::uniform4(any::<i64>()),
    ) {
        let [per_minute, burst, amount] = numbers;
        let (rate, share, mut gcra) = (Rate { per_minute, burst }, Share { part, of }, Gcra::UNUSED);
        for now in times.into_iter().chain([i64::MIN, i64::MAX, i64::MIN]).map(Timestamp::from_micros) {
            for amount in [amount, 0, 1, burst] {
                let said = gcra.decide(rate, share, amount, now);
                prop_assert!(amount <= 0 || said.is_err() || amount <= burst);
                prop_assert!(amount > 0 || said.is_ok(), "nothing is always admitted");
            }
        }
    }
}

/// A number of replicas that all shares are whole parts of.
const PARTS: i128 = 840;

/// What happens among replicas.
#[derive(Debug, Clone)]
enum Step {
    /// A request at one of them, some time later.
    Use { passes: i64, replica: usize, amount: i64 },
    /// From now on there are so many; new ones have used nothing.
    Become(usize),
}

fn steps(most: i64) -> impl Strategy<Value = Vec<Step>> {
    // Seldom enough that all of them are used up in between.
    let passes = prop_oneof![8 => Just(0), 1 => 0..SECOND / 10, 1 => 0..60 * SECOND];
    let used =
        (passes, 0..8_usize, 1..=most).prop_map(|(passes, replica, amount)| Step::Use { passes, replica, amount });
    prop::collection::vec(prop_oneof![12 => used, 1 => (1..=8_usize).prop_map(Step::Become)], 1..150)
}

/// A rate, and the largest amount that is asked for.
fn shared() -> impl Strategy<Value = (Rate, Vec<Step>, i64)> {
    (1..200_i64, 1..60_i64, 0..3_u8).prop_flat_map(|(per_minute, burst, large)| {
        let most = [1, burst / 8 + 1, burst][usize::from(large)];
        (Just(Rate { per_minute, burst }), steps(most), Just(most))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_together_stay_within_the_bound((rate, steps, largest) in shared(), begin in 1..=8_usize) {
        let mut replicas = vec![Gcra::UNUSED; begin];
        let mut now = 0;
        let number = steps.iter().map(|step| if let Step::Become(n) = step { *n } else { 0 }).max().unwrap_or(0).max(begin);
        let most = i128::from(rate.burst.max(largest * i64::try_from(number).unwrap())) * UNIT * PARTS;
        // When, how much was admitted, and what changed hands.
        let mut happened: Vec<(i64, i128, i128)> = Vec::new();
        for step in steps {
            let n = replicas.len();
            match step {
                Step::Become(m) => {
                    replicas.resize(m, Gcra::UNUSED);
                    let stay = PARTS * i128::try_from(n.min(m)).unwrap() / i128::try_from(n.max(m)).unwrap();
                    happened.push((now, 0, most / PARTS * (PARTS - stay)));
                }
                Step::Use { passes, replica, amount } => {
                    now += passes;
                    let share = Share::equal(n.try_into().unwrap());
                    if replicas[replica % n].decide(rate, share, amount, at(now)).is_ok() {
                        happened.push((now, i128::from(amount) * UNIT * PARTS, 0));
                    }
                }
            }
        }
        for from in 0..happened.len() {
            let (mut sum, mut bound) = (0, most);
            for (time, amount, changed) in &happened[from..] {
                sum += amount;
                bound += changed;
                let back = i128::from(time - happened[from].0) * i128::from(rate.per_minute) * PARTS;
                prop_assert!(sum <= bound + back, "{} of {}", sum, bound + back);
            }
        }
    }

    #[test]
    fn a_replica_stays_within_its_own_bound_whatever_it_believes((rate, steps, largest) in shared(), begin in 1..=8_i64) {
        let (mut gcra, mut now, mut n) = (Gcra::UNUSED, 0, begin);
        let number = steps.iter().map(|step| if let Step::Become(n) = step { i64::try_from(*n).unwrap() } else { 0 });
        let most = i128::from(rate.burst.max(largest * number.max().unwrap_or(0).max(begin)));
        let share = |n: i64| PARTS / i128::from(n);
        // How much was admitted, by how much the share grew, and what came back.
        let mut happened: Vec<(i128, i128, i128, i128)> = Vec::new();
        for step in steps {
            match step {
                Step::Become(m) => {
                    let m = i64::try_from(m).unwrap();
                    happened.push((0, (share(m) - share(n)).max(0), 0, share(n)));
                    // It counts with the new share from here on.
                    n = m;
                }
                Step::Use { passes, amount, .. } => {
                    now += passes;
                    let ok = gcra.decide(rate, Share::equal(n.try_into().unwrap()), amount, at(now)).is_ok();
                    let back = i128::from(passes) * i128::from(rate.per_minute) * share(n);
                    happened.push((if ok { i128::from(amount) * UNIT * PARTS } else { 0 }, 0, back, share(n)));
                }
            }
        }
        for from in 0..happened.len() {
            let (mut sum, mut bound) = (0, most * UNIT * happened[from].3);
            for (n, (amount, grown, back, _)) in happened[from..].iter().enumerate() {
                sum += amount;
                // What came back before the window began is not in it.
                bound += most * UNIT * grown + if n == 0 { 0 } else { *back };
                prop_assert!(sum <= bound, "{sum} of {bound}");
            }
        }
    }
}

#[test]
fn a_burst_at_once_and_then_one_by_one() {
    let (rate, mut gcra) = (Rate { per_minute: 60, burst: 3 }, Gcra::UNUSED);
    let mut decide = |amount, second| gcra.decide(rate, Share::WHOLE, amount, at(second * SECOND));
    assert_eq!(decide(2, 0), Ok(Room { remaining: 1, full_at: at(2 * SECOND) }));
    assert_eq!(decide(2, 0), Err(TooFast::Wait(TimeDelta::seconds(1))));
    assert_eq!(decide(1, 0), Ok(Room { remaining: 0, full_at: at(3 * SECOND) }));
    assert_eq!(decide(1, 0), Err(TooFast::Wait(TimeDelta::seconds(1))));
    assert_eq!(decide(1, 1), Ok(Room { remaining: 0, full_at: at(4 * SECOND) }));
    assert_eq!(decide(4, 100), Err(TooFast::Never));
    assert_eq!(decide(0, 1), Ok(Room { remaining: 3, full_at: at(SECOND) }), "after the clock was put back");
}

#[test]
fn a_lower_burst_forgets_what_is_above_it() {
    let (high, low) = (Rate { per_minute: 600, burst: 600 }, Rate { per_minute: 6, burst: 6 });
    let mut gcra = Gcra::UNUSED;
    assert!(gcra.decide(high, Share::WHOLE, 600, at(0)).is_ok());
    assert_eq!(
        (gcra.used(high, at(0)), gcra.used(high, at(SECOND / 20)), gcra.used(high, at(SECOND))),
        (600, 600, 590)
    );
    assert_eq!(gcra.peek(low, Share::WHOLE, 1, at(0)), Err(TooFast::Wait(TimeDelta::seconds(5_950))));
    let mut gcra = gcra.lowered(low);
    assert_eq!(gcra.peek(low, Share::WHOLE, 1, at(0)), Err(TooFast::Wait(TimeDelta::seconds(10))));
    // Back again, what was used is what was used of the lower one.
    assert_eq!(gcra.decide(high, Share::WHOLE, 594, at(0)).map(|room| room.remaining), Ok(0));
}

#[test]
fn a_clock_that_is_put_back_keeps_nobody_waiting() {
    let (rate, mut gcra) = (Rate { per_minute: 60, burst: 2 }, Gcra::UNUSED);
    assert!(gcra.decide(rate, Share::WHOLE, 2, at(3_600 * SECOND)).is_ok());
    assert_eq!(gcra.decide(rate, Share::WHOLE, 1, at(0)), Err(TooFast::Wait(TimeDelta::seconds(1))));
    assert!(gcra.decide(rate, Share::WHOLE, 1, at(SECOND)).is_ok());
    // A request that others have overtaken brings nothing back twice.
    assert!(gcra.decide(rate, Share::WHOLE, 1, at(0)).is_err());
    assert!(gcra.decide(rate, Share::WHOLE, 1, at(SECOND)).is_err());
}

#[test]
fn more_replicas_than_units_admit_something_each() {
    let (rate, share) = (Rate { per_minute: 2, burst: 2 }, Share::equal(5));
    let mut gcra = Gcra::UNUSED;
    assert_eq!(gcra.room(rate, share, at(0)).remaining, 1);
    assert!(gcra.decide(rate, share, 2, at(0)).is_ok(), "the whole burst");
    // Two units at a fifth of two a minute.
    assert_eq!(gcra.room(rate, share, at(0)).full_at, at(300 * SECOND));
    assert_eq!(gcra.decide(rate, share, 3, at(0)), Err(TooFast::Never));
    assert_eq!(gcra.decide(Rate { per_minute: 0, burst: 2 }, share, 1, at(0)), Err(TooFast::Never));
}
