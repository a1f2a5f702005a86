//! Tenants: their statuses and the ways between them. The status is computed, never stored as the truth: from what people
//! did, from the subscription, and from the time of the decision.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::id::TenantId;
use super::name::Slug;
use super::subscription::{Subscription, SubscriptionStatus};
use crate::error::Error;
use crate::time::Timestamp;

/// How long a deleted tenant can be undeleted.
pub const PURGE_AFTER: TimeDelta = TimeDelta::days(30);

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TenantStatus {
    /// Provisioned, and not confirmed yet.
    Pending,
    /// In use, on a trial that ends by itself.
    Trial,
    /// In use.
    Active,
    /// Closed for a stated reason; everything is kept.
    Suspended,
    /// The subscription has ended; everything is kept.
    Cancelled,
    /// Deleted; can be undeleted until its purge time.
    Deleted,
}

impl TenantStatus {
    /// The status's name in refusals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Trial => "trial",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Cancelled => "cancelled",
            Self::Deleted => "deleted",
        }
    }
}

/// Who suspended a tenant; decides who may lift it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SuspendedBy {
    /// One of its own.
    Member,
    /// The platform.
    Operator,
}

/// A suspension by somebody: why, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Told to members.
    pub reason: String,
    /// Decides who may lift it.
    pub by: SuspendedBy,
}

/// Why a tenant is suspended, and so what opens it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SuspendCause {
    /// One of its own closed it.
    Member,
    /// An operator closed it.
    Operator,
    /// The grace period of an unpaid subscription is over.
    Billing,
    /// The subscription is paused.
    Paused,
    /// The trial is over.
    TrialEnded,
}

impl SuspendCause {
    /// What would open the tenant, as the end of "it is suspended; ...".
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Member => "an owner can activate it",
            Self::Operator => "an operator of the platform can activate it",
            Self::Billing => "a payment opens it, or another plan",
            Self::Paused => "an owner can resume the subscription",
            Self::TrialEnded => "choosing or paying a plan opens it",
        }
    }
}

/// What the platform says of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// It has checked who it is.
    pub verified: bool,
    /// It is for showing, not for work.
    pub demo: bool,
    /// It takes no changes, but from operators.
    pub maintenance: bool,
}

/// A customer's organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub tenant_id: TenantId,
    /// Its name in URLs.
    pub slug: Slug,
    /// The name that people see.
    pub display_name: String,
    /// A suspension by somebody. Kept also while deleted, so that undeletion brings it back.
    pub suspension: Option<Suspension>,
    /// Whether it waits to be confirmed.
    pub pending: bool,
    /// What the platform says of it.
    pub flags: Flags,
    /// Its plan.
    pub subscription: Subscription,
    /// The id that another system knows it by.
    pub external_id: Option<String>,
    /// Rises with each change.
    pub version: i64,
    /// Rises with each change of its own roles; 0 while it has never had any.
    pub roles_version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// When it is gone for good.
    pub purge_at: Option<Timestamp>,
}

impl Tenant {
    /// How it stands at `now`: everything that time alone has brought since it was written.
    #[must_use]
    pub fn settled(mut self, catalogue: &Catalogue, now: Timestamp) -> Self {
        // A deleted tenant stands still: undeleted in time, it catches up.
        if self.deleted_at.is_none() {
            self.subscription.settle(catalogue, now);
        }
        self
    }

    /// Where it stands. What outweighs: deletion, the end of the subscription, suspension, pending, trial. A subscription that
    /// is resumed meets a suspension that is still there.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> TenantStatus {
        let ended = self.subscription.status == SubscriptionStatus::Cancelled;
        match self.suspend_cause(now) {
            _ if self.deleted_at.is_some() => TenantStatus::Deleted,
            _ if ended => TenantStatus::Cancelled,
            Some(_) => TenantStatus::Suspended,
            None if self.pending => TenantStatus::Pending,
            None if self.subscription.status == SubscriptionStatus::Trialing => TenantStatus::Trial,
            None => TenantStatus::Active,
        }
    }

    /// Why it is suspended; none when it is not.
    #[must_use]
    pub fn suspend_cause(&self, now: Timestamp) -> Option<SuspendCause> {
        match &self.suspension {
            Some(Suspension { by: SuspendedBy::Operator, .. }) => Some(SuspendCause::Operator),
            Some(Suspension { by: SuspendedBy::Member, .. }) => Some(SuspendCause::Member),
            None if self.subscription.status == SubscriptionStatus::Paused => Some(SuspendCause::Paused),
            None if self.subscription.is_overdue(now) && self.subscription.is_trial_over() => {
                Some(SuspendCause::TrialEnded)
            }
            None if self.subscription.is_overdue(now) => Some(SuspendCause::Billing),
            None => None,
        }
    }

    /// The reason of a suspension, as members are told; empty when it is not suspended.
    #[must_use]
    pub fn suspend_reason(&self, now: Timestamp) -> &str {
        match (self.suspend_cause(now), &self.suspension) {
            (Some(SuspendCause::Member | SuspendCause::Operator), Some(suspension)) => &suspension.reason,
            (Some(SuspendCause::Billing), _) => "billing",
            (Some(SuspendCause::Paused), _) => "paused",
            (Some(SuspendCause::TrialEnded), _) => "trial ended",
            _ => "",
        }
    }

    /// When time alone next changes something; none when it does not. To be asked of a settled tenant.
    #[must_use]
    pub fn next_boundary(&self, now: Timestamp) -> Option<Timestamp> {
        match self.deleted_at {
            Some(_) => None,
            None => self.subscription.next_boundary(now),
        }
    }

    /// Whether it is gone for good, also when no job has come round yet.
    #[must_use]
    pub fn is_purged(&self, now: Timestamp) -> bool {
        self.purge_at.is_some_and(|at| at <= now)
    }

    /// Whether people may join now; `opens` is whether a pending one begins with that. Why not, is for its members.
    ///
    /// # Errors
    /// `TenantInMaintenance`; `WrongState` when it is closed.
    pub fn may_be_joined(&self, now: Timestamp, opens: bool) -> Result<(), Error> {
        if self.flags.maintenance {
            return Err(Error::TenantInMaintenance);
        }
        match self.status(now) {
            TenantStatus::Trial | TenantStatus::Active => Ok(()),
            TenantStatus::Pending if opens => Ok(()),
            _ => Err(Error::WrongState { state: "closed", wanted: "a tenant that is open" }),
        }
    }

    /// Closes it.
    ///
    /// # Errors
    /// `WrongState` when it is closed already. An operator may take over a suspension by a member, so that no member
    /// can lift it.
    pub fn suspend(&mut self, suspension: Suspension) -> Result<(), Error> {
        match &self.suspension {
            Some(now) if !(now.by == SuspendedBy::Member && suspension.by == SuspendedBy::Operator) => {
                Err(Error::WrongState { state: "suspended", wanted: "a tenant that nobody has suspended" })
            }
            _ => {
                self.suspension = Some(suspension);
                Ok(())
            }
        }
    }

    /// Opens it again: takes a suspension by somebody back, or confirms a pending tenant.
    ///
    /// # Errors
    /// `WrongState` when nobody has suspended it, `SuspendedByOperator` when a member would lift an operator's, or confirm
    /// their own tenant.
    pub fn activate(&mut self, by: SuspendedBy, now: Timestamp) -> Result<(), Error> {
        match &self.suspension {
            Some(Suspension { by: SuspendedBy::Operator, .. }) if by == SuspendedBy::Member => {
                Err(Error::SuspendedByOperator)
            }
            Some(_) => {
                self.suspension = None;
                Ok(())
            }
            None if self.pending && by == SuspendedBy::Member => Err(Error::TenantPending),
            None if self.pending => {
                self.pending = false;
                Ok(())
            }
            None => {
                let wanted = match self.suspend_cause(now) {
                    Some(SuspendCause::Paused) => "ResumeSubscription",
                    Some(_) => "a payment or ChangePlan",
                    None if self.subscription.status == SubscriptionStatus::Cancelled => "ResumeSubscription",
                    None => "a tenant that somebody has suspended",
                };
                Err(Error::WrongState { state: self.status(now).as_str(), wanted })
            }
        }
    }

    /// Deletes it softly.
    ///
    /// # Errors
    /// `WrongState` when it is deleted already: its purge time does not move.
    pub fn delete(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.deleted_at.is_some() {
            return Err(Error::WrongState { state: "deleted", wanted: "a tenant that is not deleted" });
        }
        self.deleted_at = Some(now);
        self.purge_at = Some(now.after(PURGE_AFTER));
        Ok(())
    }

    /// Takes a deletion back.
    ///
    /// # Errors
    /// `TenantNotDeleted`; `TenantNotFound` when its purge time has passed, also when no job has come round yet.
    pub fn undelete(&mut self, now: Timestamp) -> Result<(), Error> {
        if self.deleted_at.is_none() {
            return Err(Error::TenantNotDeleted);
        }
        if self.is_purged(now) {
            return Err(Error::TenantNotFound);
        }
        self.deleted_at = None;
        self.purge_at = None;
        Ok(())
    }
}
