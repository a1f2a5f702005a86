//! What the table keeps, and what it forgets.

use chrono::TimeDelta;

use super::*;

const RATE: Rate = Rate { per_minute: 60, burst: 10 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).after(TimeDelta::seconds(seconds))
}

fn part(member: u128, amount: i64) -> Part {
    let (tenant, id) = (TenantId(Uuid::from_u128(1)), Uuid::from_u128(member));
    Part { key: RateKey { tenant, metric: "calls".into(), scope: Scope::Member, id }, rate: RATE, amount }
}

fn used(rates: &Rates, member: u128, now: Timestamp) -> i64 {
    rates.peek(&[part(member, 1)], Share::WHOLE, now)[0].used
}

fn take(rates: &Rates, parts: &[Part], now: Timestamp) -> bool {
    rates.take(parts, Share::WHOLE, now).iter().all(|said| said.refused.is_none())
}

#[test]
fn parts_go_through_together_or_not_at_all() {
    let rates = Rates::default();
    assert!(take(&rates, &[part(1, 9), part(2, 1)], at(0)));
    assert!(!take(&rates, &[part(2, 1), part(1, 2)], at(0)));
    assert_eq!((used(&rates, 1, at(0)), used(&rates, 2, at(0))), (9, 1));
    rates.give_back(&part(1, 9), Share::WHOLE, at(0), at(0));
    assert_eq!((used(&rates, 1, at(0)), used(&rates, 2, at(0))), (0, 1));
}

#[test]
fn what_is_whole_again_goes_first_and_then_what_will_be_soonest() {
    let rates = Rates::bounded(3);
    for (member, amount) in [(1, 9), (2, 2), (3, 5)] {
        assert!(take(&rates, &[part(member, amount)], at(0)));
    }
    // The second is whole again, and makes room.
    assert!(take(&rates, &[part(4, 9)], at(2)));
    assert_eq!([1, 2, 3, 4].map(|member| used(&rates, member, at(2))), [7, 0, 3, 9]);
    // Now one is forgotten that was not: the one that has least to come back.
    assert!(take(&rates, &[part(5, 9)], at(2)));
    assert_eq!([1, 2, 3, 4, 5].map(|member| used(&rates, member, at(2))), [7, 0, 0, 9, 9]);
    assert_eq!(rates.table().entries.len(), 3);
    // Nothing that is forgotten is given back.
    rates.give_back(&part(3, 5), Share::WHOLE, at(0), at(2));
    assert_eq!(rates.table().entries.len(), 3);
}

#[test]
fn the_table_never_holds_more_than_it_may_and_its_index_the_same() {
    let rates = Rates::bounded(50);
    for step in 0..2_000_u128 {
        let (member, amount) = (step * 7919 % 120, i64::try_from(step % 10).unwrap() + 1);
        let now = at(i64::try_from(step / 40).unwrap());
        if !take(&rates, &[part(member, amount)], now) {
            rates.give_back(&part(member, amount), Share::WHOLE, now, now);
        }
        let table = rates.table();
        assert!(table.entries.len() <= 50);
        let indexed: BTreeSet<_> = table.entries.iter().map(|(key, entry)| (entry.full_at, key.clone())).collect();
        assert_eq!(indexed, table.index);
    }
}

#[test]
fn a_lower_burst_keeps_nobody_waiting_longer_than_all_of_it() {
    let rates = Rates::default();
    let high = Part { rate: Rate { per_minute: 6_000, burst: 6_000 }, ..part(1, 6_000) };
    assert!(take(&rates, &[high], at(0)));
    let said = rates.take(&[part(1, 1)], Share::WHOLE, at(0))[0];
    assert_eq!((said.used, said.refused), (10, Some(TooFast::Wait(TimeDelta::seconds(1)))));
    assert!(take(&rates, &[part(1, 1)], at(1)));
}
