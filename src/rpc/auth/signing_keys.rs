//! The keys that sign access tokens.

use tonic::Request;

use crate::domain::signing_key::{KeyState, SigningKey};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn get_jwks(s: &Services, request: Request<v1::GetJwksRequest>) -> Result<v1::GetJwksResponse, Error> {
    let (_, _, _, v1::GetJwksRequest {}) = s.0.open(request).await?;
    let keys = s.0.app.published_keys().into_iter().map(|key| v1::Jwk {
        kid: key.kid,
        kty: key.kty.to_owned(),
        crv: key.crv.to_owned(),
        x: key.x,
        alg: key.alg.to_owned(),
        r#use: key.used_for.to_owned(),
    });
    Ok(v1::GetJwksResponse { keys: keys.collect() })
}

pub(super) async fn list_signing_keys(
    s: &Services,
    request: Request<v1::ListSigningKeysRequest>,
) -> Result<v1::ListSigningKeysResponse, Error> {
    let (_, _, _, v1::ListSigningKeysRequest {}) = s.0.open(request).await?;
    let keys = s.0.app.list_signing_keys().await?;
    Ok(v1::ListSigningKeysResponse { keys: keys.iter().map(shown).collect() })
}

pub(super) async fn rotate_signing_key(
    s: &Services,
    request: Request<v1::RotateSigningKeyRequest>,
) -> Result<v1::RotateSigningKeyResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let keys = s.0.app.rotate_signing_key(&ctx, key).await?;
    Ok(v1::RotateSigningKeyResponse { keys: keys.iter().map(shown).collect() })
}

pub(super) async fn revoke_signing_key(
    s: &Services,
    request: Request<v1::RevokeSigningKeyRequest>,
) -> Result<v1::RevokeSigningKeyResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let kid = if (1..=64).contains(&m.kid.len()) { Ok(()) } else { Err("must name a key, as ListSigningKeys does") };
    let (Some(key), Some(())) = (key, f.read("kid", kid)) else { return Err(f.refuse()) };
    let keys = s.0.app.revoke_signing_key(&ctx, &m.kid, key).await?;
    Ok(v1::RevokeSigningKeyResponse { keys: keys.iter().map(shown).collect() })
}

fn shown(key: &SigningKey) -> v1::SigningKey {
    let state = match key.state {
        KeyState::Next => v1::SigningKeyState::Next,
        KeyState::Current => v1::SigningKeyState::Current,
        KeyState::Retired => v1::SigningKeyState::Retired,
        KeyState::Revoked => v1::SigningKeyState::Revoked,
        KeyState::Gone => v1::SigningKeyState::Gone,
    };
    v1::SigningKey {
        kid: key.kid.clone(),
        state: state.into(),
        create_time: Some(convert::time(key.created_at)),
        ready_time: Some(convert::time(key.ready_at())),
        current_time: key.current_at.map(convert::time),
        retire_time: key.retired_at.map(convert::time),
        over_time: key.over_at.map(convert::time),
        revoke_time: key.revoked_at.map(convert::time),
    }
}
