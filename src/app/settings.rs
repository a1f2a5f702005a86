//! Settings of a tenant: what it has set itself, over the catalogue's defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use crate::ctx::TenantCtx;
use crate::domain::role::RoleName;
use crate::domain::secret::{hex, sha256};
use crate::domain::settings::Settings;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, settings};

/// Settings as a tenant sees them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TenantSettings {
    /// What holds.
    pub holds: Settings,
    /// The paths that the tenant has set itself.
    pub own_paths: Vec<String>,
    /// Rises with each change; 0 before the first.
    pub version: i64,
}

impl TenantSettings {
    fn new(own: &Settings, version: i64, t: &TenantCtx) -> Self {
        Self { holds: own.over(&t.catalogue.definition.settings), own_paths: own.paths(), version }
    }
}

impl App {
    /// Shows the settings.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn get_settings(&self, t: &TenantCtx) -> Result<TenantSettings, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let (own, version) = settings::find(&mut tx).await?;
        Ok(TenantSettings::new(&own, version, t))
    }

    /// Takes the fields that `paths` name from `new`, which was checked.
    ///
    /// # Errors
    /// `FieldsInvalid`, `EtagMismatch`, `RankTooLow` when people would join at a role above the caller's.
    pub async fn update_settings(
        &self,
        t: &TenantCtx,
        new: &Settings,
        paths: &[String],
        sent_etag: &str,
        key: Option<RequestKey>,
    ) -> Result<TenantSettings, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (_, own) = self.lock_tenant(&mut open.tx, t).await?;
        let (before, version) = settings::find(&mut open.tx).await?;
        check_etag(sent_etag, version)?;
        let after = Settings::masked(&before, new, paths)
            .map_err(|_| Error::field("update_mask", "must name settings that there are"))?;
        let answer = TenantSettings::new(&after, version + 1, t);
        if after.auto_join != before.auto_join {
            let joins = &answer.holds.auto_join;
            let enabled = joins.enabled == Some(true);
            match &joins.role {
                // Nobody gives what they do not have, also not to those who come later.
                Some(role) => own.may_give([&RoleName::new(role)])?,
                None if enabled => {
                    let problem = "must be named, so that it is clear what those are who join";
                    return Err(Error::field("settings.auto_join.role", problem));
                }
                None => {}
            }
        }
        settings::put(&mut open.tx, &after, answer.version, t.ctx.now).await?;
        self.finish(open, &t.ctx, changes(Audit::of(tenant_id.0), &before, &after), answer).await
    }
}

/// Notes each leaf that changed, by its path.
fn changes(audit: Audit, before: &Settings, after: &Settings) -> Audit {
    let mut leaves: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    for (path, value) in before.leaves() {
        leaves.entry(path).or_default().0 = value;
    }
    for (path, value) in after.leaves() {
        leaves.entry(path).or_default().1 = value;
    }
    leaves.into_iter().filter(|(_, (before, after))| before != after).fold(audit, |audit, (path, (before, after))| {
        match path.as_str() {
            "custom" | "branding.css" => audit.field(&path, digest(before), digest(after)),
            _ => audit.field(&path, before, after),
        }
    })
}

/// A value for the audit log: as it is, or, when it is long, by the beginning of its SHA-256.
pub(super) fn digest(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= 200 {
        return value;
    }
    // Of the text itself, so that whoever has it can compare.
    let bytes = value.as_str().unwrap_or(&text).as_bytes();
    format!("sha256:{}", &hex(&sha256(bytes))[..16]).into()
}
