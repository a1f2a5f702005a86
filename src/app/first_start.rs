//! Keys that the first start makes: the master key and an operator's key, in files that only the owner can read, and the
//! key that signs access tokens, sealed in the database. Later starts check that file and database belong together.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::signing_keys;
use crate::ctx::PlatformKey;
use crate::decide::token::{Audiences, Tokens};
use crate::domain::api_key::OperatorScope;
use crate::domain::id::PlatformKeyId;
use crate::domain::role::Permissions;
use crate::domain::seal::MasterKey;
use crate::domain::secret::{Key, KeyKind, Secret, hex};
use crate::domain::signing_key::{KeyState, find};
use crate::entropy;
use crate::error::Error;
use crate::store::jobs::{self, JobKind};
use crate::store::keys;
use crate::store::{OnPlatform, Store};
use crate::time::Timestamp;

/// Where keys are kept and what tokens say.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// The master key's file.
    pub master_key_file: PathBuf,
    /// The operator key's file.
    pub operator_key_file: PathBuf,
    /// `iss` of access tokens.
    pub issuer: String,
    /// `aud` of access tokens.
    pub audiences: Audiences,
}

/// Why the server must not start with these keys; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The database was made with a key that is not here.
    #[error(
        "{0}: there is no master key here, and the database was made with one. Copy the file from the server that made \
         it, or name it with --master-key-file; without it nothing sealed can be read"
    )]
    MasterMissing(PathBuf),
    /// The database was made with another key.
    #[error(
        "{0}: this is not the master key that the database was made with. Name the right file with --master-key-file"
    )]
    MasterWrong(PathBuf),
    /// Others can read the file.
    #[error("{path}: others can read this key (mode {mode:o}); run `chmod 600 {path}`")]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] Error),
}

/// What a start has found or made.
pub struct Keys {
    /// What seals and signs for ourselves.
    pub master: Arc<MasterKey>,
    /// What signs access tokens.
    pub tokens: Tokens,
    /// Whether this start made the operator's key.
    pub operator_key_made: bool,
}

/// Finds the keys, or makes them in a new database.
///
/// # Errors
/// When file and database do not belong together, or a file is open to others.
pub async fn keys(store: &Store, settings: &KeySettings, now: Timestamp) -> Result<Keys, KeyError> {
    let mut tx = store.write(OnPlatform).await?;
    let known = keys::master_check(&mut tx).await?;
    let path = &settings.master_key_file;
    let (master, new) = match read_private(path)? {
        Some(text) => (master_key(path, &text)?, None),
        None if known.is_some() => return Err(KeyError::MasterMissing(path.clone())),
        None => {
            let text = Secret::new(hex(&entropy::bytes::<32>()));
            (master_key(path, &text)?, Some(text))
        }
    };
    let check = master.mac("check", &[b"tenantry"]);
    if known.is_none() {
        keys::insert_master_check(&mut tx, &check).await?;
    }
    // Read again: another server may have been first, and then its key is the one.
    if keys::master_check(&mut tx).await?.as_deref() != Some(&check[..]) {
        return Err(if new.is_some() {
            KeyError::MasterMissing(path.clone())
        } else {
            KeyError::MasterWrong(path.clone())
        });
    }
    if let Some(text) = new {
        write_private(path, text.expose())?;
    }
    let master = Arc::new(master);
    if find(&keys::list_signing_keys(&mut tx).await?, KeyState::Current).is_none() {
        let mut key = signing_keys::new_key(&master, now)?;
        key.promote(now);
        keys::insert_signing_key(&mut tx, &key).await?;
    }
    // Publishes the next one, and rotates.
    jobs::ensure(&mut tx, JobKind::SigningKeys, signing_keys::SUBJECT, now).await?;
    let tokens = Tokens::new(master.clone(), settings.issuer.clone(), settings.audiences.clone());
    tokens.follow(&keys::list_signing_keys(&mut tx).await?)?;
    let operator_key_made = keys::count_operator_keys(&mut tx, now).await? == 0;
    if operator_key_made {
        let key = operator_key(&settings.operator_key_file)?;
        let row = PlatformKey {
            platform_key_id: PlatformKeyId(entropy::id(now)),
            kind: KeyKind::Operator,
            key_id: key.key_id.clone(),
            display_name: "first operator".to_owned(),
            last4: key.last4(),
            permissions: Permissions::all(),
            scope: OperatorScope::All,
            created_at: now,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            old_ends_at: None,
        };
        keys::insert_platform_key(&mut tx, &row, &key.digest()).await?;
    }
    tx.commit_unaudited(now).await?;
    Ok(Keys { master, tokens, operator_key_made })
}

fn master_key(path: &Path, text: &Secret<String>) -> Result<MasterKey, KeyError> {
    let bytes = unhex(text.expose().trim()).ok_or_else(|| KeyError::File {
        path: path.to_owned(),
        problem: "a master key is 64 hexadecimal digits".to_owned(),
    })?;
    Ok(MasterKey::new(&Secret::new(bytes)))
}

/// The operator's key in the file; a new one when there is no file. A file from a start that was cut short is used.
fn operator_key(path: &Path) -> Result<Key, KeyError> {
    let Some(text) = read_private(path)? else {
        let key = Key::generate(KeyKind::Operator);
        write_private(path, key.text.expose())?;
        return Ok(key);
    };
    Key::parse(text.expose().trim()).filter(|key| key.kind == KeyKind::Operator).ok_or_else(|| KeyError::File {
        path: path.to_owned(),
        problem: "this is not an operator key; move it away, and a new one will be made".to_owned(),
    })
}

fn read_private(path: &Path) -> Result<Option<Secret<String>>, KeyError> {
    let wrong = |e: std::io::Error| KeyError::File { path: path.to_owned(), problem: e.to_string() };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    let mode = fs::metadata(path).map_err(wrong)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(Some(Secret::new(text)))
}

fn write_private(path: &Path, text: &str) -> Result<(), KeyError> {
    let wrong = |e: std::io::Error| KeyError::File { path: path.to_owned(), problem: e.to_string() };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(wrong)?;
    }
    // Whole or not at all, also when the power fails: written beside, then linked to its name, which must be free.
    let beside = path.with_extension(format!("{}.new", hex(&entropy::bytes::<8>())));
    let beside_wrong = |e: std::io::Error| KeyError::File { path: beside.clone(), problem: e.to_string() };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(beside_wrong)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all());
    let named = written.and_then(|()| fs::hard_link(&beside, path)).or_else(|error| match error.kind() {
        // No hard links on this file system; nobody else makes this file but a second first start.
        ErrorKind::Unsupported | ErrorKind::PermissionDenied if !path.exists() => fs::rename(&beside, path),
        _ => Err(error),
    });
    let _ = fs::remove_file(&beside);
    named.and_then(|()| sync_directory(path)).map_err(wrong)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}
