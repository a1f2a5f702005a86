//! The catalogue in memory. It changes rarely and every decision needs it, so it is kept, and read anew when the version
//! that came with a tenant's row is another one: exact, without a query of its own.

use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::catalogue::Catalogue;
use crate::error::Error;
use crate::store::Store;

/// A version that no catalogue has.
const NONE: i64 = -1;

/// The catalogue that was in force when it was last looked at.
pub struct Catalogues {
    newest: RwLock<Arc<Catalogue>>,
}

impl Catalogues {
    /// Begins with what the start has read.
    #[must_use]
    pub fn new(catalogue: Catalogue) -> Self {
        Self { newest: RwLock::new(Arc::new(catalogue)) }
    }

    /// The catalogue as it was last seen. For what may be a moment old, such as the rates of methods; everything else asks
    /// for a version, or for the `newest`.
    #[must_use]
    pub fn seen(&self) -> Arc<Catalogue> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The catalogue that is in force at least since `version`.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; internal when a kept catalogue cannot be read.
    pub async fn at(&self, store: &Store, version: i64) -> Result<Arc<Catalogue>, Error> {
        let seen = self.seen();
        if seen.version >= version {
            return Ok(seen);
        }
        self.newest(store).await
    }

    /// The catalogue in force now.
    ///
    /// # Errors
    /// As `at`.
    pub async fn newest(&self, store: &Store) -> Result<Arc<Catalogue>, Error> {
        let seen = self.seen();
        let Some(read) = store.read_catalogue(seen.version).await? else { return Ok(seen) };
        let read = Arc::new(read);
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        if newest.version < read.version {
            *newest = read.clone();
        }
        Ok(read)
    }

    /// Reads what is in force, whatever was seen: the database may have gone back to an older state.
    ///
    /// # Errors
    /// As `at`.
    pub async fn read_anew(&self, store: &Store) -> Result<(), Error> {
        let Some(read) = store.read_catalogue(NONE).await? else { return Ok(()) };
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
        Ok(())
    }
}
