//! Ways to break the engine, each of which the simulation must find out. They are there only with the feature `mutants`,
//! which no release has; without it nothing of this is left in the code.

#[cfg(feature = "mutants")]
use std::cell::Cell;

/// A guard that is left out, or an order that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Neither epoch nor amount of a lease is checked.
    BothGuards,
    /// The epoch is not; the amount alone still keeps the limit.
    EpochGuard,
    /// The amount is not; the epoch alone still keeps the limit.
    AmountGuard,
    /// Refusals of keys are not remembered.
    RefusalUnrecorded,
    /// Items that wait keep what backs them.
    WaitersHold,
    /// Leases are returned before what they back is settled.
    ReturnUndrained,
    /// Keys are claimed in the order in which they came.
    UnsortedKeys,
    /// A commit without an answer counts as done.
    UnknownIsCommitted,
    /// A commit without an answer counts as not done.
    UnknownIsAborted,
    /// What a dead server had settled is not folded.
    ReclaimForgetsSettled,
    /// What a dead server has leased is taken back account first, and lease then.
    ReclaimAccountFirst,
    /// What a dead server may have promised is not forfeited.
    ForfeitsUncounted,
    /// What gives units back is decided after what takes some.
    FreesAfterTakes,
    /// Who follows an item of the same key is compared with that, not with what is stored.
    FollowerOfLeader,
}

#[cfg(feature = "mutants")]
thread_local! {
    static BROKEN: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Breaks the engines of this thread, or mends them.
#[cfg(feature = "mutants")]
pub fn break_engines(how: Option<Mutant>) {
    BROKEN.set(how);
}

/// Whether the engine is broken in this way.
#[cfg(feature = "mutants")]
pub(super) fn is(mutant: Mutant) -> bool {
    BROKEN.get() == Some(mutant)
}

/// Never.
#[cfg(not(feature = "mutants"))]
pub(super) const fn is(_: Mutant) -> bool {
    false
}
