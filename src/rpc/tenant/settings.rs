//! Settings and integrations.

use prost_types::FieldMask;
use tonic::Request;

use crate::app::mutation::etag;
use crate::app::settings::TenantSettings;
use crate::domain::integration::{self, Integration, SecretChange};
use crate::domain::settings::Settings;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, json, settings, v1};

/// Paths that a mask may have: more than there are settings.
const MOST_PATHS: usize = 100;

pub(super) async fn get_settings(
    s: &Services,
    request: Request<v1::GetSettingsRequest>,
) -> Result<v1::GetSettingsResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let (settings, own_fields, etag) = shown(&s.0.app.get_settings(&t).await?);
    Ok(v1::GetSettingsResponse { settings: Some(settings), own_fields: Some(own_fields), etag })
}

pub(super) async fn update_settings(
    s: &Services,
    request: Request<v1::UpdateSettingsRequest>,
) -> Result<v1::UpdateSettingsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let new = settings::read(&mut f, m.settings.unwrap_or_default());
    let paths = paths(&mut f, m.update_mask, &new);
    // What a mask leaves out is not looked at.
    let taken =
        paths.as_ref().and_then(|paths| Settings::masked(&Settings::default(), &new, paths).ok()).unwrap_or(new);
    settings::check(&mut f, &taken, &t.roles);
    let (Some(key), Some(paths), true) = (key, paths, f.is_clean()) else { return Err(f.refuse()) };
    let done = s.0.app.update_settings(&t, &taken, &paths, &m.etag, key).await?;
    let (settings, own_fields, etag) = shown(&done);
    Ok(v1::UpdateSettingsResponse { settings: Some(settings), own_fields: Some(own_fields), etag })
}

pub(super) async fn list_integrations(
    s: &Services,
    request: Request<v1::ListIntegrationsRequest>,
) -> Result<v1::ListIntegrationsResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let integrations = s.0.app.list_integrations(&t).await?;
    Ok(v1::ListIntegrationsResponse { integrations: integrations.iter().map(integration_message).collect() })
}

/// The configuration is replaced as a whole: absent, it is empty. The secret is no part of what a `request_id` stands for, as
/// passwords are not: repeated with another secret, the call gives the first answer and changes nothing.
pub(super) async fn set_integration(
    s: &Services,
    request: Request<v1::SetIntegrationRequest>,
) -> Result<v1::SetIntegrationResponse, Error> {
    let (t, mut m) = s.0.enter(request).await?;
    let secret = std::mem::take(&mut m.secret);
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("name", integration::name(&m.name));
    let config = f.read("config", json::object(m.config));
    let secret = f.read("secret", SecretChange::parse(secret, m.clear_secret));
    let (Some(key), Some(()), Some(config), Some(secret)) = (key, name, config, secret) else {
        return Err(f.refuse());
    };
    let done = s.0.app.set_integration(&t, (&m.name, config), secret, &m.etag, key).await?;
    Ok(v1::SetIntegrationResponse { integration: Some(integration_message(&done)) })
}

pub(super) async fn delete_integration(
    s: &Services,
    request: Request<v1::DeleteIntegrationRequest>,
) -> Result<v1::DeleteIntegrationResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("name", integration::name(&m.name));
    let (Some(key), Some(())) = (key, name) else { return Err(f.refuse()) };
    s.0.app.delete_integration(&t, &m.name, key).await?;
    Ok(v1::DeleteIntegrationResponse {})
}

/// The paths that are to change; without a mask, those of the leaves that are given.
fn paths(f: &mut Fields, mask: Option<FieldMask>, new: &Settings) -> Option<Vec<String>> {
    let named = mask.map(|mask| mask.paths).unwrap_or_default();
    if named.len() > MOST_PATHS {
        return f.read("update_mask", Err("must be at most 100 paths"));
    }
    if named.is_empty() {
        let given = new.paths();
        // Unless something was given that did not read.
        if given.is_empty() && f.is_clean() {
            return f.read("update_mask", Err("must say what changes when no settings are given"));
        }
        return Some(given);
    }
    let paths: Vec<String> = named.iter().map(|path| settings::domain_path(path)).collect();
    if let Some(at) = paths.iter().position(|path| !Settings::has(path)) {
        let start: String = named[at].chars().take(64).flat_map(char::escape_default).collect();
        return f.read("update_mask", Err(format!("must name settings that there are; `{start}` is none")));
    }
    Some(paths)
}

fn shown(settings: &TenantSettings) -> (v1::Settings, FieldMask, String) {
    let paths = settings.own_paths.iter().map(|path| settings::message_path(path)).collect();
    (settings::message(&settings.holds), FieldMask { paths }, etag(settings.version))
}

fn integration_message(integration: &Integration) -> v1::Integration {
    v1::Integration {
        name: integration.name.clone(),
        config: Some(json::message(&integration.config)),
        has_secret: integration.has_secret,
        secret_update_time: integration.secret_updated_at.map(convert::time),
        update_time: Some(convert::time(integration.updated_at)),
        etag: etag(integration.version),
    }
}
