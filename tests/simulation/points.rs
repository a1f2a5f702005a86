//! Where something may go wrong: the points of section 11 of the protocol, each a boundary between two steps. The simulation
//! goes by them in all orders; `tests/failpoints` goes by each once on real databases, where the names of the same
//! functions are those of its own `rows.rs` and `server.rs`.
//!
//! | point | place |
//! |---|---|
//! | `arrive.held` | `cluster.rs`: the engine has taken the item in, and nothing else has run |
//! | `batch.begin` | `rows.rs`, `beat`: the writer's row is written, and locked |
//! | `batch.claimed` | `claim`: the keys are inserted |
//! | `batch.leases_locked` | `lock_leases` |
//! | `batch.accounts_locked` | `lock_accounts`, of a lane's batch |
//! | `batch.written` | `write` |
//! | `commit.sent` | `commit`, before the database has it |
//! | `commit.lost_applied`, `commit.lost_unapplied` | `commit`: it is not answered, and the database does or does not |
//! | `committed.unanswered` | `commit`: done, and the engine has not seen it |
//! | `ack.half` | `cluster.rs`: one answer was read, others of the batch were not |
//! | `grant.committed` | `commit` of a batch that raised what a lease was granted |
//! | `recall.marked` | `commit` of a batch that raised `recall_need`, before the notice |
//! | `recall.notified` | `tell`, after the notice |
//! | `return.committed` | `commit` of a batch that closed a lease of its own, before the notice |
//! | `reclaim.lease_locked` | `lock_leases_of` |
//! | `lower.rows_locked` | `operator.rs`: lease rows and account are locked |
//! | `reserve.committed` | `commit` of a batch that opened a hold |
//! | `expire.locked` | `lock_due_holds` |
//! | `promise.answered` | `cluster.rs`: a promise was read |
//! | `resolve.before` | `resolve`, before the database has it |

/// Where something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    ArriveHeld,
    BatchBegin,
    BatchClaimed,
    BatchLeasesLocked,
    BatchAccountsLocked,
    BatchWritten,
    CommitSent,
    CommitLostApplied,
    CommitLostUnapplied,
    CommittedUnanswered,
    AckHalf,
    GrantCommitted,
    RecallMarked,
    RecallNotified,
    ReturnCommitted,
    ReclaimLeaseLocked,
    LowerRowsLocked,
    ReserveCommitted,
    ExpireLocked,
    PromiseAnswered,
    ResolveBefore,
}

pub(crate) const POINTS: [Point; 21] = [
    Point::ArriveHeld,
    Point::BatchBegin,
    Point::BatchClaimed,
    Point::BatchLeasesLocked,
    Point::BatchAccountsLocked,
    Point::BatchWritten,
    Point::CommitSent,
    Point::CommitLostApplied,
    Point::CommitLostUnapplied,
    Point::CommittedUnanswered,
    Point::AckHalf,
    Point::GrantCommitted,
    Point::RecallMarked,
    Point::RecallNotified,
    Point::ReturnCommitted,
    Point::ReclaimLeaseLocked,
    Point::LowerRowsLocked,
    Point::ReserveCommitted,
    Point::ExpireLocked,
    Point::PromiseAnswered,
    Point::ResolveBefore,
];
