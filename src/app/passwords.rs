//! How passwords are hashed and compared: Argon2id with the parameters of OWASP's cheat sheet, a bounded number at once,
//! half of them kept for people on devices that they have used before, so that a flood of guesses does not keep them out.
//! Imported hashes may be of other parameters, or bcrypt; they are replaced at the first sign-in.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::secret::Secret;
use crate::entropy;
use crate::error::Error;

/// Memory in KiB, passes and lanes. See the OWASP Password Storage Cheat Sheet: m=19456, t=2, p=1.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory: 19456, passes: 2 }
    }
}

/// How long a thread waits for something to hash: a new one would use memory of its own.
const KEPT: Duration = Duration::from_hours(24);

/// How long a request waits for its turn to hash.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bounds of an imported Argon2id hash: memory in KiB, passes, lanes. Whoever signs in with it makes us pay for it.
const MOST_MEMORY: u32 = 1 << 17;
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;

/// Costs of an imported bcrypt hash.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// Whether a hash that another system made can be compared with: Argon2id as a PHC string, or bcrypt, neither too dear.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn check_imported(hash: &str) -> Result<(), &'static str> {
    const WRONG: &str = "must be a PHC string of Argon2id (`$argon2id$v=19$m=..,t=..,p=..$salt$hash`) or a bcrypt hash";
    if hash.len() > 512 {
        return Err(WRONG);
    }
    if is_bcrypt(hash) {
        let parts: bcrypt::HashParts = hash.parse().map_err(|_| WRONG)?;
        return if BCRYPT_COSTS.contains(&parts.get_cost()) { Ok(()) } else { Err("must have a cost of 4 to 16") };
    }
    let parsed = PasswordHash::new(hash).map_err(|_| WRONG)?;
    let params = Params::try_from(&parsed).map_err(|_| WRONG)?;
    let version = parsed.version.unwrap_or(0x13);
    if parsed.algorithm.as_str() != "argon2id" || parsed.salt.is_none() || parsed.hash.is_none() || version != 0x13 {
        return Err(WRONG);
    }
    if params.m_cost() > MOST_MEMORY || params.t_cost() > MOST_PASSES || params.p_cost() > MOST_LANES {
        return Err("must cost at most 128 MiB of memory (m=131072), 16 passes (t) and 16 lanes (p)");
    }
    Ok(())
}

/// Whether a stored hash is bcrypt's: 60 characters with a prefix of its own.
fn is_bcrypt(hash: &str) -> bool {
    hash.len() == 60 && hash.is_ascii() && ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix))
}

/// Hashes and compares.
pub struct Passwords {
    threads: Threads,
    argon: Argon2<'static>,
    /// A hash of nothing anybody knows, so that an unknown address costs what a known one does.
    decoy: String,
    open: Arc<Semaphore>,
    known: Arc<Semaphore>,
}

/// Whether a password was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// No.
    Wrong,
    /// Yes.
    Right,
    /// Yes, and this hash with today's parameters should take the place of the old one.
    RightButOld(String),
}

impl Passwords {
    /// With this cost, so many at once.
    ///
    /// # Errors
    /// When the parameters are none that Argon2 has.
    pub fn new(cost: Cost, permits: usize) -> Result<Self, Error> {
        let internal = |e: argon2::Error| Error::Internal(e.to_string().into());
        let params = Params::new(cost.memory, cost.passes, 1, None).map_err(internal)?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = hash(&argon, &entropy::bytes::<16>())?;
        let known = permits / 2;
        let threads = Threads::new(permits).map_err(|e| Error::Internal(Box::new(e)))?;
        Ok(Self {
            threads,
            argon,
            decoy,
            open: Arc::new(Semaphore::new((permits - known).max(1))),
            known: Arc::new(Semaphore::new(known)),
        })
    }

    /// Hashes a new password; `known` when somebody who is known waits for it.
    ///
    /// # Errors
    /// `Overloaded` when too many are being hashed.
    pub async fn hash(&self, password: Secret<String>, known: bool) -> Result<String, Error> {
        let permit = self.turn(known).await?;
        let argon = self.argon.clone();
        self.threads.run(permit, move || hash(&argon, password.expose().as_bytes())).await
    }

    /// Compares a password with a stored hash, or with a decoy when there is none: one run of Argon2 whatever is stored,
    /// and a second one only when the password was right.
    ///
    /// # Errors
    /// `Overloaded` when too many are being compared.
    pub async fn compare(
        &self,
        password: Secret<String>,
        stored: Option<String>,
        known_device: bool,
    ) -> Result<Comparison, Error> {
        let permit = self.turn(known_device).await?;
        let argon = self.argon.clone();
        let exists = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.clone());
        let decoy = self.decoy.clone();
        self.threads
            .run(permit, move || {
                if is_bcrypt(&stored) {
                    // Counted like everybody's.
                    verify(&argon, password.expose(), &decoy)?;
                    // bcrypt looks at the first 72 bytes of a password only; from this sign-in on all of it counts.
                    return match bcrypt::verify(password.expose(), &stored) {
                        Ok(true) => hash(&argon, password.expose().as_bytes()).map(Comparison::RightButOld),
                        _ => Ok(Comparison::Wrong),
                    };
                }
                if !verify(&argon, password.expose(), &stored)? || !exists {
                    return Ok(Comparison::Wrong);
                }
                if is_current(&argon, &stored) {
                    return Ok(Comparison::Right);
                }
                hash(&argon, password.expose().as_bytes()).map(Comparison::RightButOld)
            })
            .await
    }

    async fn turn(&self, known_device: bool) -> Result<OwnedSemaphorePermit, Error> {
        let open = self.open.clone().acquire_owned();
        let turn = async {
            if known_device && let Ok(permit) = self.known.clone().try_acquire_owned() {
                return Ok(permit);
            }
            if known_device {
                return tokio::select! {
                    permit = open => permit,
                    permit = self.known.clone().acquire_owned() => permit,
                };
            }
            open.await
        };
        let turn = tokio::time::timeout(PATIENCE, turn).await.map_err(|_| Error::Overloaded)?;
        turn.map_err(|_| Error::internal("the hashing turns are closed"))
    }
}

/// One run of Argon2, counted: what is told and what is not must cost the same number of them.
fn count_run() {
    metrics::counter!("tenantry_argon2_runs_total").increment(1);
}

fn verify(argon: &Argon2<'_>, password: &str, stored: &str) -> Result<bool, Error> {
    let parsed = PasswordHash::new(stored).map_err(|e| Error::Internal(e.to_string().into()))?;
    count_run();
    Ok(argon.verify_password(password.as_bytes(), &parsed).is_ok())
}

/// Whether a hash has today's parameters.
fn is_current(argon: &Argon2<'_>, stored: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(stored) else { return false };
    let wanted = argon.params();
    let same =
        |p: Params| p.m_cost() == wanted.m_cost() && p.t_cost() == wanted.t_cost() && p.p_cost() == wanted.p_cost();
    parsed.algorithm.as_str() == "argon2id" && Params::try_from(&parsed).is_ok_and(same)
}

fn hash(argon: &Argon2<'_>, password: &[u8]) -> Result<String, Error> {
    count_run();
    let salt = entropy::bytes::<16>();
    let hash = argon.hash_password_with_salt(password, &salt);
    hash.map(|h| h.to_string()).map_err(|e| Error::Internal(e.to_string().into()))
}

/// Threads that hash, no more than may hash at once. Not those of other blocking work, of which there are hundreds: an
/// allocator keeps for each thread what a hash has used on it.
struct Threads(Option<Runtime>);

impl Threads {
    fn new(permits: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(permits.max(2))
            .thread_keep_alive(KEPT)
            .thread_name("password")
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs on one of them. The turn ends with the work, also when the caller has gone away meanwhile.
    async fn run<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let runtime = self.0.as_ref().ok_or_else(|| Error::internal("passwords are hashed after the end"))?;
        let done = runtime.spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        done.await.map_err(|_| Error::internal("hashing a password panicked"))?
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which must not happen on a thread of another.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_that_can_be_afforded_are_imported() {
        let bcrypt = |prefix: &str, cost: u32| {
            format!("${prefix}${cost:02}$abcdefghijklmnopqrstuu5LZwvPJrZkyXqzJGkKS6LAnNdpQG8qW")
        };
        for good in [
            "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo"
                .to_owned(),
            "$argon2id$v=19$m=131072,t=16,p=16$c29tZXNhbHRzb21lc2FsdA$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo"
                .to_owned(),
            bcrypt("2a", 4),
            bcrypt("2b", 12),
            bcrypt("2y", 16),
        ] {
            assert_eq!(check_imported(&good), Ok(()), "{good}");
        }
        for bad in [
            "$argon2id$v=19$m=131073,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo"
                .to_owned(),
            "$argon2id$v=19$m=65536,t=17,p=4$c29tZXNhbHRzb21lc2FsdA$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo"
                .to_owned(),
            "$argon2id$v=19$m=65536,t=3,p=17$c29tZXNhbHRzb21lc2FsdA$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo"
                .to_owned(),
            "$argon2i$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo"
                .to_owned(),
            "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA".to_owned(),
            "plain".to_owned(),
            String::new(),
            bcrypt("2x", 10),
            bcrypt("2b", 3),
            bcrypt("2b", 17),
            format!("{}x", bcrypt("2b", 10)),
            "5f4dcc3b5aa765d61d8327deb882cf99".to_owned(),
        ] {
            assert!(check_imported(&bad).is_err(), "{bad}");
        }
    }
}
