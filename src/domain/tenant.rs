//! Tenants: their statuses and the ways between them.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::id::TenantId;
use super::name::Slug;
use crate::error::Error;
use crate::time::Timestamp;

/// How long a deleted tenant can be undeleted.
pub const PURGE_AFTER: TimeDelta = TimeDelta::days(30);

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TenantStatus {
    /// In use.
    Active,
    /// Closed for a stated reason; everything is kept.
    Suspended,
    /// Deleted; can be undeleted until its purge time.
    Deleted,
}

impl TenantStatus {
    /// The status's name in refusals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
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

/// A suspension: why, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Told to members.
    pub reason: String,
    /// Decides who may lift it.
    pub by: SuspendedBy,
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
    /// Kept also while deleted, so that undeletion brings it back.
    pub suspension: Option<Suspension>,
    /// The plan's name in the catalogue.
    pub plan: String,
    /// Rises with each change.
    pub version: i64,
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
    /// Where it stands: deleted outweighs suspended.
    #[must_use]
    pub const fn status(&self) -> TenantStatus {
        match (self.deleted_at, &self.suspension) {
            (Some(_), _) => TenantStatus::Deleted,
            (None, Some(_)) => TenantStatus::Suspended,
            (None, None) => TenantStatus::Active,
        }
    }

    /// Whether it is gone for good, also when no job has come round yet.
    #[must_use]
    pub fn is_purged(&self, now: Timestamp) -> bool {
        self.purge_at.is_some_and(|at| at <= now)
    }

    /// Closes it.
    ///
    /// # Errors
    /// `WrongState` when it is closed already. An operator may take over a suspension by a member, so that no member
    /// can lift it.
    pub fn suspend(&mut self, suspension: Suspension) -> Result<(), Error> {
        match &self.suspension {
            Some(now) if !(now.by == SuspendedBy::Member && suspension.by == SuspendedBy::Operator) => {
                Err(Error::WrongState { state: "suspended", wanted: "an active tenant" })
            }
            _ => {
                self.suspension = Some(suspension);
                Ok(())
            }
        }
    }

    /// Opens it again.
    ///
    /// # Errors
    /// `WrongState` when it is not suspended, `SuspendedByOperator` when a member would lift an operator's.
    pub fn activate(&mut self, by: SuspendedBy) -> Result<(), Error> {
        match &self.suspension {
            None => Err(Error::WrongState { state: self.status().as_str(), wanted: "a suspended tenant" }),
            Some(Suspension { by: SuspendedBy::Operator, .. }) if by == SuspendedBy::Member => {
                Err(Error::SuspendedByOperator)
            }
            Some(_) => {
                self.suspension = None;
                Ok(())
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
