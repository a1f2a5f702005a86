//! Keys of tenants and of their members.

use tonic::Request;
use uuid::Uuid;

use super::overlap;
use crate::app::api_keys::NewKey;
use crate::domain::id::ApiKeyId;
use crate::domain::name::display_name;
use crate::domain::role::Permissions;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};

pub(super) async fn create_api_key(
    s: &Services,
    request: Request<v1::CreateApiKeyRequest>,
) -> Result<v1::CreateApiKeyResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let new = new_key(&mut f, (&m.display_name, &m.permissions, m.ttl.as_ref()));
    let (Some(key), Some(new)) = (key, new) else { return Err(f.refuse()) };
    let done = s.0.app.create_api_key(&t, new, key).await?;
    Ok(v1::CreateApiKeyResponse {
        key: Some(convert::api_key(&done.key, t.ctx.now)),
        secret: done.secret.expose().clone(),
    })
}

pub(super) async fn list_api_keys(
    s: &Services,
    request: Request<v1::ListApiKeysRequest>,
) -> Result<v1::ListApiKeysResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let filter = v1::ListApiKeysRequest { own_only: m.own_only, ..v1::ListApiKeysRequest::default() };
    let master = &s.0.app.master;
    let page = Page::read(master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &filter)?;
    let mut keys = s.0.app.list_api_keys(&t, m.own_only, page.span()).await?;
    let next_page_token = page.cut(master, &mut keys, |key| key.api_key_id.0);
    let keys = keys.iter().map(|key| convert::api_key(key, t.ctx.now)).collect();
    Ok(v1::ListApiKeysResponse { keys, next_page_token })
}

pub(super) async fn update_api_key(
    s: &Services,
    request: Request<v1::UpdateApiKeyRequest>,
) -> Result<v1::UpdateApiKeyResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let id = api_key_id(&mut f, &m.api_key_id);
    let name = f.read("display_name", display_name(&m.display_name));
    let (Some(key), Some(id), Some(name)) = (key, id, name) else { return Err(f.refuse()) };
    let done = s.0.app.update_api_key(&t, id, (name, &m.etag), key).await?;
    Ok(v1::UpdateApiKeyResponse { key: Some(convert::api_key(&done, t.ctx.now)) })
}

pub(super) async fn rotate_api_key(
    s: &Services,
    request: Request<v1::RotateApiKeyRequest>,
) -> Result<v1::RotateApiKeyResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (id, overlap) = (api_key_id(&mut f, &m.api_key_id), overlap(&mut f, m.overlap.as_ref()));
    let (Some(key), Some(id), Some(overlap)) = (key, id, overlap) else { return Err(f.refuse()) };
    let done = s.0.app.rotate_api_key(&t, id, (false, overlap), key).await?;
    Ok(v1::RotateApiKeyResponse {
        key: Some(convert::api_key(&done.key, t.ctx.now)),
        secret: done.secret.expose().clone(),
    })
}

pub(super) async fn revoke_api_key(
    s: &Services,
    request: Request<v1::RevokeApiKeyRequest>,
) -> Result<v1::RevokeApiKeyResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(id)) = (key, api_key_id(&mut f, &m.api_key_id)) else { return Err(f.refuse()) };
    s.0.app.revoke_api_key(&t, id, false, key).await?;
    Ok(v1::RevokeApiKeyResponse {})
}

pub(super) async fn create_personal_key(
    s: &Services,
    request: Request<v1::CreatePersonalKeyRequest>,
) -> Result<v1::CreatePersonalKeyResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let new = new_key(&mut f, (&m.display_name, &m.permissions, m.ttl.as_ref()));
    let (Some(key), Some(new)) = (key, new) else { return Err(f.refuse()) };
    let done = s.0.app.create_personal_key(&t, new, key).await?;
    let secret = done.secret.expose().clone();
    Ok(v1::CreatePersonalKeyResponse { key: Some(convert::api_key(&done.key, t.ctx.now)), secret })
}

pub(super) async fn list_personal_keys(
    s: &Services,
    request: Request<v1::ListPersonalKeysRequest>,
) -> Result<v1::ListPersonalKeysResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    // The list is the caller's own, so that a page token of somebody else's goes on nowhere.
    let filter = v1::ListPersonalKeysRequest {
        tenant: t.user_id().map(|user| user.to_string()).unwrap_or_default(),
        ..v1::ListPersonalKeysRequest::default()
    };
    let master = &s.0.app.master;
    let page = Page::read(master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &filter)?;
    let mut keys = s.0.app.list_personal_keys(&t, page.span()).await?;
    let next_page_token = page.cut(master, &mut keys, |key| key.api_key_id.0);
    let keys = keys.iter().map(|key| convert::api_key(key, t.ctx.now)).collect();
    Ok(v1::ListPersonalKeysResponse { keys, next_page_token })
}

pub(super) async fn rotate_personal_key(
    s: &Services,
    request: Request<v1::RotatePersonalKeyRequest>,
) -> Result<v1::RotatePersonalKeyResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (id, overlap) = (api_key_id(&mut f, &m.api_key_id), overlap(&mut f, m.overlap.as_ref()));
    let (Some(key), Some(id), Some(overlap)) = (key, id, overlap) else { return Err(f.refuse()) };
    let done = s.0.app.rotate_api_key(&t, id, (true, overlap), key).await?;
    let secret = done.secret.expose().clone();
    Ok(v1::RotatePersonalKeyResponse { key: Some(convert::api_key(&done.key, t.ctx.now)), secret })
}

pub(super) async fn revoke_personal_key(
    s: &Services,
    request: Request<v1::RevokePersonalKeyRequest>,
) -> Result<v1::RevokePersonalKeyResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(id)) = (key, api_key_id(&mut f, &m.api_key_id)) else { return Err(f.refuse()) };
    s.0.app.revoke_api_key(&t, id, true, key).await?;
    Ok(v1::RevokePersonalKeyResponse {})
}

fn new_key(
    f: &mut Fields,
    (name, permissions, ttl): (&str, &[String], Option<&prost_types::Duration>),
) -> Option<NewKey> {
    let name = f.read("display_name", display_name(name));
    let permissions = f.read("permissions", Permissions::parse(permissions));
    let ttl = f.ttl("ttl", ttl);
    Some(NewKey { display_name: name?, permissions: permissions?, ttl: ttl? })
}

fn api_key_id(f: &mut Fields, text: &str) -> Option<ApiKeyId> {
    f.read("api_key_id", Uuid::try_parse(text).map(ApiKeyId).map_err(|_| "must be a key's id, a UUID"))
}
