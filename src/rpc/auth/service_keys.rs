//! Keys of services.

use tonic::Request;

use crate::domain::name::display_name;
use crate::domain::role::Permissions;
use crate::error::Error;
use crate::rpc::fields::Fields;
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
    let (Some(key), Some(name), Some(permissions), Some(ttl)) = (key, name, permissions, ttl) else {
        return Err(f.refuse());
    };
    let (key, secret) = s.0.app.create_service_key(&ctx, name, permissions, ttl, key).await?;
    Ok(v1::CreateServiceKeyResponse { key: Some(convert::platform_key(&key)), secret: secret.expose().clone() })
}
