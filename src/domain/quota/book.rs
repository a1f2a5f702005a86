//! Deciding: a batch's rows, locked, and what its requests make of them. The order of calls is that of section 4.2 of the
//! protocol: what was promised and must be counted, then what gives units back, then what takes some, then leases.

use std::collections::BTreeMap;

use super::{AccountKey, AccountRow, Class, LeaseRow, Notice, Standing, UNLIMITED};

/// What is decided about an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is room.
    Admitted,
    /// There is none, and no lease that came back could make any.
    Refused,
    /// There is none now: leases that are out must come back first.
    Undecided,
}

#[derive(Debug, Clone)]
struct Folio {
    row: AccountRow,
    written: bool,
    /// The largest amount that could not be decided.
    undecided: i64,
    /// Whether something was decided directly.
    decided: bool,
    /// The largest amount that was asked for.
    largest: i64,
}

/// The rows that a batch has locked.
#[derive(Debug, Clone, Default)]
pub struct Book {
    accounts: BTreeMap<AccountKey, Folio>,
    leases: BTreeMap<(AccountKey, Class), (LeaseRow, bool)>,
}

impl Book {
    /// A book of these accounts and of the lane's own leases.
    #[must_use]
    pub fn new(accounts: Vec<AccountRow>, leases: Vec<LeaseRow>) -> Self {
        let folio =
            |row: AccountRow| (row.key, Folio { row, written: false, undecided: 0, decided: false, largest: 0 });
        Self {
            accounts: accounts.into_iter().map(folio).collect(),
            leases: leases.into_iter().map(|row| ((row.account, row.class), (row, false))).collect(),
        }
    }

    /// An account, if it was locked.
    #[must_use]
    pub fn account(&self, key: &AccountKey) -> Option<&AccountRow> {
        self.accounts.get(key).map(|folio| &folio.row)
    }

    /// A lease, if it was locked.
    #[must_use]
    pub fn lease(&self, key: &AccountKey, class: Class) -> Option<&LeaseRow> {
        self.leases.get(&(*key, class)).map(|(row, _)| row)
    }

    /// Where an account stands now.
    #[must_use]
    pub fn standing(&self, key: &AccountKey) -> Option<Standing> {
        self.account(key).map(AccountRow::standing)
    }

    /// Counts what the lane settles on its own lease. The caller has checked epoch and room.
    pub fn settle(&mut self, key: &AccountKey, class: Class, amount: i64) {
        if let Some((lease, written)) = self.leases.get_mut(&(*key, class)) {
            lease.settled += amount;
            *written = true;
            if let Some(folio) = self.accounts.get_mut(key) {
                folio.row.settled += amount;
            }
        }
    }

    /// Whether an amount can be counted at all: its account is there, and the sum stays in the range of amounts.
    #[must_use]
    pub fn can_force(&self, key: &AccountKey, amount: i64) -> bool {
        self.account(key).is_some_and(|row| row.committed <= UNLIMITED - amount)
    }

    /// Counts what happened already, above the limit if need be. Of a promise, the part that its lane forfeited is taken from
    /// there.
    pub fn force(&mut self, key: &AccountKey, amount: i64, promised: bool) {
        let Some(folio) = self.accounts.get_mut(key) else { return };
        folio.row.committed += amount;
        folio.written = true;
        if let Some((lease, written)) = self.leases.get_mut(&(*key, Class::Leased)).filter(|_| promised) {
            let covered = amount.min(lease.forfeited);
            lease.forfeited -= covered;
            folio.row.forfeited -= covered;
            *written |= covered > 0;
        }
    }

    /// Gives used units back.
    pub fn free(&mut self, key: &AccountKey, amount: i64) {
        if let Some(folio) = self.accounts.get_mut(key) {
            folio.row.committed -= amount;
            folio.written = true;
        }
    }

    /// Gives back what a hold set aside.
    pub fn unreserve(&mut self, key: &AccountKey, amount: i64) {
        if let Some(folio) = self.accounts.get_mut(key) {
            folio.row.reserved -= amount;
            folio.written = true;
        }
    }

    /// What would become of these amounts, all or none. Refused as soon as no recall can help; an account that is not there
    /// has no room.
    #[must_use]
    pub fn weigh(&self, parts: &[(AccountKey, i64)]) -> Verdict {
        let mut verdict = Verdict::Admitted;
        for (key, amount) in parts {
            let Some(row) = self.account(key) else { return Verdict::Refused };
            if *amount > row.reachable() {
                return Verdict::Refused;
            }
            if *amount > row.available() {
                if cfg!(feature = "broken-recall") {
                    return Verdict::Refused;
                }
                verdict = Verdict::Undecided;
            }
        }
        verdict
    }

    /// Decides amounts, all or none, and charges them when they are admitted: as used, or as set aside.
    pub fn take(&mut self, parts: &[(AccountKey, i64)], reserve: bool) -> Verdict {
        let verdict = self.weigh(parts);
        for (key, amount) in parts {
            let Some(folio) = self.accounts.get_mut(key) else { continue };
            folio.largest = folio.largest.max(*amount);
            match verdict {
                Verdict::Admitted => {
                    let side = if reserve { &mut folio.row.reserved } else { &mut folio.row.committed };
                    *side += amount;
                    folio.written = true;
                    folio.decided = true;
                }
                Verdict::Refused => folio.decided = true,
                Verdict::Undecided if *amount > folio.row.available() => {
                    folio.undecided = folio.undecided.max(*amount);
                }
                Verdict::Undecided => {}
            }
        }
        verdict
    }

    /// Whether somebody waits for units of an account, from before or from this batch.
    fn is_recalled(&self, key: &AccountKey) -> bool {
        self.accounts.get(key).is_none_or(|folio| folio.row.recall_need > 0 || folio.undecided > 0)
    }

    /// Folds what a lease has settled into its account, so that used is known there.
    fn fold(&mut self, key: &AccountKey, class: Class) {
        let (Some(folio), Some((lease, written))) = (self.accounts.get_mut(key), self.leases.get_mut(&(*key, class)))
        else {
            return;
        };
        if lease.settled == 0 {
            return;
        }
        folio.row.committed += lease.settled;
        folio.row.settled -= lease.settled;
        folio.row.leased -= lease.settled;
        lease.granted -= lease.settled;
        lease.settled = 0;
        (folio.written, *written) = (true, true);
    }

    /// Folds, then grants up to `wanted` units to the lane's lease, opening it when it is closed. `known` is the epoch that the
    /// lane has in memory, 0 for none: a row that is open with another epoch gets nothing. Gives the epoch and how much.
    /// Nothing is granted below the watermark, nor while somebody waits.
    pub fn grant(&mut self, blank: LeaseRow, wanted: i64, known: i64) -> Option<(i64, i64)> {
        let (key, class) = (blank.account, blank.class);
        self.leases.entry((key, class)).or_insert((blank, false));
        let row = self.lease(&key, class)?;
        if row.granted > 0 && row.epoch != known {
            return None;
        }
        self.fold(&key, class);
        let recalled = self.is_recalled(&key);
        let folio = self.accounts.get_mut(&key)?;
        let (lease, written) = self.leases.get_mut(&(key, class))?;
        let watermark = watermark(folio);
        let room = if recalled { 0 } else { folio.row.available() - watermark };
        let given = wanted.min(room);
        if given <= 0 {
            return Some((lease.epoch, 0));
        }
        if lease.epoch == 0 || lease.epoch != known {
            lease.epoch = folio.row.next_epoch;
            folio.row.next_epoch += 1;
        }
        lease.granted += given;
        folio.row.leased += given;
        (folio.written, *written) = (true, true);
        Some((lease.epoch, given))
    }

    /// Closes the lane's own lease and returns what it has not used. What was promised and never written is forfeited.
    pub fn give_back(&mut self, key: &AccountKey, class: Class, spent: i64) {
        self.close(key, class, spent);
    }

    /// Gives back what was forfeited of the lane's own leases, but for what it owes. Not when its lease is not the one with the
    /// known epoch, 0 for none: it was closed since, and more may be owed than the lane knew.
    pub fn absolve(&mut self, key: &AccountKey, known: i64, owed: i64) -> bool {
        let (Some(folio), Some((lease, written))) =
            (self.accounts.get_mut(key), self.leases.get_mut(&(*key, Class::Leased)))
        else {
            // There is no row: nothing was forfeited.
            return true;
        };
        if lease.epoch != known {
            return false;
        }
        let excess = (lease.forfeited - owed).max(0);
        lease.forfeited -= excess;
        folio.row.forfeited -= excess;
        folio.written |= excess > 0;
        *written |= excess > 0;
        true
    }

    /// Closes a lease from outside: its holder may have promised what it has not settled, and of the leased class that is
    /// forfeited until the period ends.
    pub fn fence(&mut self, key: &AccountKey, class: Class) {
        self.close(key, class, if class == Class::Leased { i64::MAX } else { 0 });
    }

    fn close(&mut self, key: &AccountKey, class: Class, forfeit: i64) {
        let (Some(folio), Some((lease, written))) = (self.accounts.get_mut(key), self.leases.get_mut(&(*key, class)))
        else {
            return;
        };
        lease.close(&mut folio.row, forfeit);
        (folio.written, *written) = (true, true);
    }

    /// Ends the deciding: writes down who waits, or that nobody does any more, and gives the thresholds that were reached.
    pub fn finish(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for folio in self.accounts.values_mut() {
            let before = folio.row.recall_need;
            if folio.undecided > 0 {
                folio.row.recall_need = before.max(folio.undecided);
            } else if folio.decided && folio.row.available() >= watermark(folio) {
                folio.row.recall_need = 0;
            }
            folio.written |= folio.row.recall_need != before;
            let reached = folio.row.reach();
            folio.written |= !reached.is_empty();
            notices.extend(reached);
        }
        notices
    }

    /// The accounts that are different now.
    pub fn written_accounts(&self) -> impl Iterator<Item = &AccountRow> {
        self.accounts.values().filter(|folio| folio.written).map(|folio| &folio.row)
    }

    /// The leases that are different now.
    pub fn written_leases(&self) -> impl Iterator<Item = &LeaseRow> {
        self.leases.values().filter(|(_, written)| *written).map(|(row, _)| row)
    }

    /// The accounts that units are wanted of.
    pub fn recalled(&self) -> impl Iterator<Item = AccountKey> {
        self.accounts.iter().filter(|(_, folio)| folio.undecided > 0).map(|(key, _)| *key)
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountRow> {
        self.accounts.values().map(|folio| &folio.row)
    }
}

/// Below this much nothing is leased: the last hundredth, or room for a few requests, is decided row by row.
fn watermark(folio: &Folio) -> i64 {
    (folio.row.limit / 100).max(folio.largest.saturating_mul(8)).min(folio.row.limit)
}
