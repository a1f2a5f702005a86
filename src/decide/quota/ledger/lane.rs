//! A commit lane in memory: its writer, its queue, its leases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;

use super::Op;
use crate::decide::quota::item::Item;
use crate::decide::quota::mutant::{self, Mutant};
use crate::decide::quota::{Micros, Settings};
use crate::domain::quota::{AccountKey, Class};

/// A lease, as far as this server knows. `free + pending + spent` is what its row has granted and not settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) epoch: i64,
    pub(super) free: i64,
    /// Held by items that are not settled.
    pub(super) pending: i64,
    /// Promised, and never to be settled.
    spent: i64,
    pub(super) closing: bool,
    pub(super) used_at: Micros,
    /// Whether something was settled that is not folded.
    settled: bool,
}

/// What became of an account's leases that are gone. One that was closed from outside was forfeited as if all that it had left
/// was promised; the lane knows what was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lost {
    /// Promised, and never to be settled.
    spent: i64,
    rest: Rest,
}

/// Whether what was forfeited and not spent is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Rest {
    /// It was, or there is none.
    #[default]
    None,
    /// It is to be.
    Due,
    /// It was asked for; again then, should that not have done it.
    AskedUntil(Micros),
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) writer: Uuid,
    pub(super) batch_no: i64,
    pub(super) queue: VecDeque<super::Entry>,
    pub(super) leases: BTreeMap<(AccountKey, Class), Lease>,
    pub(super) lost: BTreeMap<AccountKey, Lost>,
    /// What is to be done with leases.
    pub(super) ops: BTreeMap<(AccountKey, Class), Op>,
    /// Accounts of which what was forfeited is to be given back.
    pub(super) absolutions: BTreeSet<AccountKey>,
    /// When it last reached the database.
    pub(super) reached: Option<Micros>,
    /// When its leases are looked through next.
    pub(super) look_at: Micros,
    pub(super) at_work: bool,
}

impl Lane {
    /// Whether its leases of a class have room for every charge of an item.
    pub(super) fn covers(&self, item: &Item, class: Class) -> bool {
        item.charges.iter().all(|charge| {
            let lease = self.leases.get(&(charge.account, class));
            lease.is_some_and(|lease| !lease.closing && lease.free >= charge.amount)
        })
    }

    /// What items hold of an account.
    pub(super) fn pending(&self, account: &AccountKey) -> i64 {
        let of = |class| self.leases.get(&(*account, class)).map_or(0, |lease| lease.pending);
        of(Class::Durable) + of(Class::Leased)
    }

    /// What its leases have out, used or not.
    pub(super) fn leased(&self) -> i64 {
        self.leases.values().map(|lease| lease.free + lease.pending + lease.spent).sum()
    }

    /// Returns leases that are wanted back and settled, those that nobody uses, and all when the server stops; folds what was
    /// settled, so that others know of it.
    pub(super) fn look_after_leases(&mut self, stopping: bool, settings: &Settings, now: Micros) {
        self.look_at = now + settings.look;
        for ((account, class), lease) in &mut self.leases {
            lease.closing |= stopping || lease.used_at + settings.idle_return < now;
            let (account, class) = (*account, *class);
            if lease.closing && (lease.pending == 0 || mutant::is(Mutant::ReturnUndrained)) {
                self.ops.insert((account, class), Op::Return { account, class, spent: lease.spent });
            } else if lease.settled && !lease.closing {
                self.ops.entry((account, class)).or_insert(Op::Grant { account, class, wanted: 0, known: 0 });
            }
        }
        for (account, lost) in &mut self.lost {
            let is_due = match lost.rest {
                Rest::None => false,
                Rest::Due => true,
                Rest::AskedUntil(then) => then <= now,
            };
            if is_due || (stopping && lost.rest != Rest::None) {
                self.absolutions.insert(*account);
                lost.rest = Rest::AskedUntil(now + settings.idle_return);
            }
        }
    }

    /// The operations that are due beside these items, with the epochs that are known now.
    pub(super) fn take_ops(&mut self, entries: &[super::Entry]) -> Vec<Op> {
        let (ops, absolutions) = (std::mem::take(&mut self.ops), std::mem::take(&mut self.absolutions));
        let epoch = |key| self.leases.get(&key).map_or(0, |lease| lease.epoch);
        let with_epoch = |op| match op {
            Op::Grant { account, class, wanted, .. } => {
                Op::Grant { account, class, wanted, known: epoch((account, class)) }
            }
            op => op,
        };
        let absolve = |account| {
            let spent = self.lost.get(&account).map_or(0, |lost| lost.spent);
            let promised = entries.iter().chain(&self.queue).filter(|entry| entry.promised);
            let charges = promised.flat_map(|entry| &entry.item.charges);
            let promised: i64 = charges.filter(|charge| charge.account == account).map(|charge| charge.amount).sum();
            Op::Absolve { account, known: epoch((account, Class::Leased)), owed: spent + promised }
        };
        ops.into_values().map(with_epoch).chain(absolutions.into_iter().map(absolve)).collect()
    }

    /// Whether there is nothing to commit.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.ops.is_empty() && self.absolutions.is_empty()
    }

    /// Whether it has no leases, and what was forfeited of them is given back.
    pub(super) fn owns_nothing(&self) -> bool {
        self.leases.is_empty() && self.lost.values().all(|lost| lost.rest == Rest::None)
    }

    /// Forgets what was to be done: what is still due comes up again.
    pub(super) fn drop_ops(&mut self) {
        self.ops.clear();
        self.absolutions.clear();
    }

    pub(super) fn close(&mut self, key: (AccountKey, Class)) {
        if let Some(lease) = self.leases.get_mut(&key) {
            lease.closing = true;
            self.look_at = 0;
        }
    }

    /// Forgets a lease whose fence was found broken.
    pub(super) fn drop_lease(&mut self, key: (AccountKey, Class), epoch: i64) {
        if self.leases.get(&key).is_some_and(|lease| lease.epoch == epoch) {
            self.remove_lease(key);
        }
    }

    /// Forgets all leases: the lane was declared dead.
    pub(super) fn drop_leases(&mut self) {
        for key in self.leases.keys().copied().collect::<Vec<_>>() {
            self.remove_lease(key);
        }
    }

    /// Forgets a lease that is closed, by whomever.
    pub(super) fn remove_lease(&mut self, key: (AccountKey, Class)) {
        if let Some(lease) = self.leases.remove(&key) {
            self.lose(key, lease);
        }
    }

    fn lose(&mut self, (account, class): (AccountKey, Class), lease: Lease) {
        if class == Class::Leased {
            let lost = self.lost.entry(account).or_default();
            lost.spent += lease.spent;
            (lost.rest, self.look_at) = (Rest::Due, 0);
        }
    }

    /// What was forfeited of an account was given back but for so much; the rest later, when what is owed is settled.
    pub(super) fn absolved(&mut self, account: &AccountKey, owed: i64) {
        // Not when more was lost after that was asked for.
        let is_all = |lost: &&mut Lost| lost.spent == owed && lost.rest != Rest::Due;
        let Some(lost) = self.lost.get_mut(account).filter(is_all) else { return };
        lost.rest = Rest::None;
        if lost.spent == 0 {
            self.lost.remove(account);
        }
    }

    /// Enters what a lease was granted; none when its row was open with an epoch that nothing here knows.
    pub(super) fn granted(&mut self, key: (AccountKey, Class), grant: Option<(i64, i64)>, now: Micros) {
        let Some((epoch, amount)) = grant else { return self.remove_lease(key) };
        match self.leases.get_mut(&key).filter(|lease| lease.epoch == epoch) {
            Some(lease) => {
                lease.free += amount;
                lease.settled = false;
            }
            None if amount > 0 => {
                let lease =
                    Lease { epoch, free: amount, pending: 0, spent: 0, closing: false, used_at: now, settled: false };
                if let Some(gone) = self.leases.insert(key, lease) {
                    self.lose(key, gone);
                }
            }
            None => self.remove_lease(key),
        }
    }

    /// An item's parts were settled on their leases.
    pub(super) fn settled(&mut self, entry: &mut super::Entry) {
        for (charge, held) in entry.item.charges.iter().zip(&mut entry.held) {
            let Some(held) = held.take() else { continue };
            if let Some(lease) = self.lease_of(charge.account, held.class, held.epoch) {
                lease.pending -= charge.amount;
                lease.settled = true;
            }
        }
    }

    /// An item's parts are not used: back to the leases that backed them, if those still stand. Without `reuse` they are spent:
    /// somebody was told that he has them.
    pub(super) fn give_back(&mut self, entry: &mut super::Entry, reuse: bool) {
        for (charge, held) in entry.item.charges.iter().zip(&mut entry.held) {
            let Some(held) = held.take() else { continue };
            if let Some(lease) = self.lease_of(charge.account, held.class, held.epoch) {
                lease.pending -= charge.amount;
                *(if reuse { &mut lease.free } else { &mut lease.spent }) += charge.amount;
            } else if !reuse && held.class == Class::Leased {
                // Forfeited with the lease, and rightly so.
                self.lost.entry(charge.account).or_default().spent += charge.amount;
            }
        }
    }

    fn lease_of(&mut self, account: AccountKey, class: Class, epoch: i64) -> Option<&mut Lease> {
        let lease = self.leases.get_mut(&(account, class)).filter(|lease| lease.epoch == epoch)?;
        if lease.closing {
            self.look_at = 0;
        }
        Some(lease)
    }
}
