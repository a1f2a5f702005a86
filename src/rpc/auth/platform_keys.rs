//! Keys of services and operators.

use tonic::Request;

use super::overlap;
use crate::app::platform_keys::NewPlatformKey;
use crate::domain::api_key::OperatorScope;
use crate::domain::name::display_name;
use crate::domain::role::Permissions;
use crate::domain::secret::KeyKind;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};

pub(super) async fn create_service_key(
    s: &Services,
    request: Request<v1::CreateServiceKeyRequest>,
) -> Result<v1::CreateServiceKeyResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("display_name", display_name(&m.display_name));
    let permissions = f.read("permissions", Permissions::parse(&m.permissions));
    let ttl = f.ttl("ttl", m.ttl.as_ref());
    let (Some(key), Some(display_name), Some(permissions), Some(ttl)) = (key, name, permissions, ttl) else {
        return Err(f.refuse());
    };
    let new = NewPlatformKey { kind: KeyKind::Service, display_name, permissions, scope: OperatorScope::All, ttl };
    let done = s.0.app.create_platform_key(&ctx, new, key).await?;
    let secret = done.secret.expose().clone();
    Ok(v1::CreateServiceKeyResponse { key: Some(convert::platform_key(&done.key)), secret })
}

pub(super) async fn create_operator_key(
    s: &Services,
    request: Request<v1::CreateOperatorKeyRequest>,
) -> Result<v1::CreateOperatorKeyResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("display_name", display_name(&m.display_name));
    let scope = match v1::OperatorScope::try_from(m.scope) {
        Ok(v1::OperatorScope::Read) => Ok(OperatorScope::Read),
        Ok(v1::OperatorScope::Support) => Ok(OperatorScope::Support),
        Ok(v1::OperatorScope::All) => Ok(OperatorScope::All),
        Ok(v1::OperatorScope::Unspecified) | Err(_) => Err("must be one of the scopes that there are"),
    };
    let scope = f.read("scope", scope);
    let ttl = f.ttl("ttl", m.ttl.as_ref());
    let (Some(key), Some(display_name), Some(scope), Some(ttl)) = (key, name, scope, ttl) else {
        return Err(f.refuse());
    };
    let new = NewPlatformKey { kind: KeyKind::Operator, display_name, permissions: Permissions::all(), scope, ttl };
    let done = s.0.app.create_platform_key(&ctx, new, key).await?;
    let secret = done.secret.expose().clone();
    Ok(v1::CreateOperatorKeyResponse { key: Some(convert::platform_key(&done.key)), secret })
}

pub(super) async fn list_platform_keys(
    s: &Services,
    request: Request<v1::ListPlatformKeysRequest>,
) -> Result<v1::ListPlatformKeysResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let kind = match v1::CallerKind::try_from(m.kind) {
        Ok(v1::CallerKind::Unspecified) => None,
        Ok(v1::CallerKind::Service) => Some(KeyKind::Service),
        Ok(v1::CallerKind::Operator) => Some(KeyKind::Operator),
        _ => return Err(Error::field("kind", "must be CALLER_KIND_SERVICE or CALLER_KIND_OPERATOR")),
    };
    let filter = v1::ListPlatformKeysRequest { kind: m.kind, ..v1::ListPlatformKeysRequest::default() };
    let master = &s.0.app.master;
    let page = Page::read(master, &ctx, None, (m.page_size, &m.page_token), &filter)?;
    let mut keys = s.0.app.list_platform_keys(kind, page.span()).await?;
    let next_page_token = page.cut(master, &mut keys, |key| key.platform_key_id.0);
    Ok(v1::ListPlatformKeysResponse { keys: keys.iter().map(convert::platform_key).collect(), next_page_token })
}

pub(super) async fn rotate_platform_key(
    s: &Services,
    request: Request<v1::RotatePlatformKeyRequest>,
) -> Result<v1::RotatePlatformKeyResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (id, overlap) = (key_id(&mut f, &m.key_id), overlap(&mut f, m.overlap.as_ref()));
    let (Some(key), Some(()), Some(overlap)) = (key, id, overlap) else { return Err(f.refuse()) };
    let done = s.0.app.rotate_platform_key(&ctx, &m.key_id, overlap, key).await?;
    let secret = done.secret.expose().clone();
    Ok(v1::RotatePlatformKeyResponse { key: Some(convert::platform_key(&done.key)), secret })
}

pub(super) async fn revoke_platform_key(
    s: &Services,
    request: Request<v1::RevokePlatformKeyRequest>,
) -> Result<v1::RevokePlatformKeyResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(())) = (key, key_id(&mut f, &m.key_id)) else { return Err(f.refuse()) };
    s.0.app.revoke_platform_key(&ctx, &m.key_id, key).await?;
    Ok(v1::RevokePlatformKeyResponse {})
}

/// The public part of a key. A whole key is a secret and has no place here.
fn key_id(f: &mut Fields, text: &str) -> Option<()> {
    let ok = text.len() == 12 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    f.read("key_id", if ok { Ok(()) } else { Err("must be the public part of a key: 12 letters and digits") })
}
