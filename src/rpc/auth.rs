//! `AuthService`: decodes, calls the use case, encodes.

use tonic::{Request, Response, Status};

use super::fields::Fields;
use super::status::respond;
use super::{Services, convert, v1};
use crate::app::authorize::Question;
use crate::app::sign_in::NewAccount;
use crate::ctx::{Caller, Ctx};
use crate::domain::name::{Email, Slug, TenantName, display_name};
use crate::domain::role::{Permissions, is_permission};
use crate::domain::secret::Secret;
use crate::domain::{membership::Membership, password};
use crate::error::Error;

#[tonic::async_trait]
impl v1::auth_service_server::AuthService for Services {
    async fn sign_up(&self, request: Request<v1::SignUpRequest>) -> Result<Response<v1::SignUpResponse>, Status> {
        respond(async {
            let (ctx, _, _, mut m) = self.0.open(request).await?;
            let secret = std::mem::take(&mut m.password);
            let mut f = Fields::default();
            let key = f.request_key(&m.request_id, &m, &self.0.app.master);
            let email = f.read("email", Email::parse(&m.email));
            let name = f.read("display_name", display_name(&m.display_name));
            let password = f.read("password", password::check(&secret, &[&m.email, &m.display_name]));
            let tenant = match &m.tenant {
                None => Some(None),
                Some(tenant) => {
                    let name = f.read("tenant.display_name", display_name(&tenant.display_name));
                    let slug = f.read("tenant.slug", Slug::choose(&tenant.slug));
                    name.zip(slug).map(Some)
                }
            };
            let (Some(key), Some(email), Some(display_name), Some(()), Some(tenant)) =
                (key, email, name, password, tenant)
            else {
                return Err(f.refuse());
            };
            let new = NewAccount { email, password: Secret::new(secret), display_name, tenant };
            let (done, token) = self.0.app.sign_up(&ctx, new, key).await?;
            Ok(v1::SignUpResponse {
                user: Some(convert::user(&done.user)),
                tenant: done.tenant.as_ref().map(|tenant| convert::tenant(tenant, ctx.now)),
                access_token: Some(convert::access_token(&done.session, &token)),
            })
        })
        .await
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Result<Response<v1::LoginResponse>, Status> {
        respond(async {
            let (ctx, _, _, m) = self.0.open(request).await?;
            let mut f = Fields::default();
            let email = f.read("email", Email::parse(&m.email));
            let password = if m.password.chars().count() <= 128 { Ok(()) } else { Err("is longer than any password") };
            let password = f.read("password", password);
            let device = if m.device_token.len() <= 64 { Ok(()) } else { Err("is no device token") };
            let device = f.read("device_token", device);
            let tenant = optional_tenant(&mut f, "tenant", &m.tenant);
            let (Some(email), Some(()), Some(()), Some(tenant)) = (email, password, device, tenant) else {
                return Err(f.refuse());
            };
            let secret = Secret::new(m.password);
            let done = self.0.app.login(&ctx, &email, secret, tenant.as_ref(), &m.device_token).await?;
            Ok(v1::LoginResponse {
                user: Some(convert::user(&done.user)),
                access_token: Some(convert::access_token(&done.session, &done.token)),
                device_token: done.device_token.expose().clone(),
            })
        })
        .await
    }

    async fn switch_tenant(
        &self,
        request: Request<v1::SwitchTenantRequest>,
    ) -> Result<Response<v1::SwitchTenantResponse>, Status> {
        respond(async {
            let (ctx, _, _, m) = self.0.open(request).await?;
            let mut f = Fields::default();
            let key = f.request_key(&m.request_id, &m, &self.0.app.master);
            let to = f.read("to_tenant", TenantName::parse(&m.to_tenant));
            let (Some(key), Some(to)) = (key, to) else { return Err(f.refuse()) };
            let person = ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))?;
            let (session, token) = self.0.app.switch_tenant(&ctx, person, &to, key).await?;
            Ok(v1::SwitchTenantResponse { access_token: Some(convert::access_token(&session, &token)) })
        })
        .await
    }

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        respond(async {
            let (ctx, t, _, v1::WhoAmIRequest {}) = self.0.open(request).await?;
            let key = ctx.caller.key();
            let permissions = match &t {
                Some(t) => t.permissions.names(),
                None => key.map(|key| key.permissions.names()).unwrap_or_default(),
            };
            Ok(v1::WhoAmIResponse {
                kind: kind(&ctx).into(),
                user: ctx.caller.person().map(|person| convert::user(&person.user)),
                key: key.map(convert::platform_key),
                tenant: t.as_ref().map(|t| convert::tenant(&t.tenant, ctx.now)),
                role: t.as_ref().and_then(|t| t.member.as_ref()).map(role).unwrap_or_default(),
                permissions,
            })
        })
        .await
    }

    async fn create_service_key(
        &self,
        request: Request<v1::CreateServiceKeyRequest>,
    ) -> Result<Response<v1::CreateServiceKeyResponse>, Status> {
        respond(async {
            let (ctx, _, _, m) = self.0.open(request).await?;
            let mut f = Fields::default();
            let key = f.request_key(&m.request_id, &m, &self.0.app.master);
            let name = f.read("display_name", display_name(&m.display_name));
            let permissions = f.read("permissions", Permissions::parse(&m.permissions));
            let ttl = f.ttl("ttl", m.ttl.as_ref());
            let (Some(key), Some(name), Some(permissions), Some(ttl)) = (key, name, permissions, ttl) else {
                return Err(f.refuse());
            };
            let (key, secret) = self.0.app.create_service_key(&ctx, name, permissions, ttl, key).await?;
            Ok(v1::CreateServiceKeyResponse { key: Some(convert::platform_key(&key)), secret: secret.expose().clone() })
        })
        .await
    }

    async fn authorize(
        &self,
        request: Request<v1::AuthorizeRequest>,
    ) -> Result<Response<v1::AuthorizeResponse>, Status> {
        respond(async {
            let (ctx, _, claims, m) = self.0.open(request).await?;
            let mut f = Fields::default();
            let tenant = optional_tenant(&mut f, "tenant", &m.tenant);
            let count = if m.permissions.len() <= 100 { Ok(()) } else { Err("must be at most 100") };
            f.read("permissions", count);
            for (i, permission) in m.permissions.iter().take(100).enumerate() {
                let one = if is_permission(permission, false) { Ok(()) } else { Err("must read noun.verb") };
                f.read(&format!("permissions[{i}]"), one);
            }
            let amounts = f.amounts(&m.amounts, 0);
            let idempotency_key = f.idempotency_key(&m.idempotency_key);
            let level = match v1::AckLevel::try_from(m.ack_level) {
                Ok(level) => Ok(level != v1::AckLevel::CheckOnly),
                Err(_) => Err("must be one of the levels that there are"),
            };
            let level = f.read("ack_level", level);
            let (Some(tenant), Some(amounts), Some(idempotency_key), Some(consume)) =
                (tenant, amounts, idempotency_key, level)
            else {
                return Err(f.refuse());
            };
            if !f.is_clean() {
                return Err(f.refuse());
            }
            let subject_token = (!m.subject_token.is_empty()).then_some(m.subject_token);
            let question = Question {
                tenant,
                claims,
                subject_token,
                permissions: m.permissions,
                amounts,
                consume,
                idempotency_key,
            };
            let decision = self.0.app.authorize(&ctx, question).await?;
            let standing = decision.standing.as_ref();
            Ok(v1::AuthorizeResponse {
                allowed: decision.reasons.is_empty(),
                reasons: decision.reasons.iter().flat_map(convert::deny_reasons).collect(),
                user: decision.user.as_ref().map(convert::user),
                tenant: standing.map(|s| convert::tenant(&s.tenant, ctx.now)),
                role: standing.and_then(|s| s.member.as_ref()).map(role).unwrap_or_default(),
                usage: decision.usage.iter().map(convert::usage).collect(),
            })
        })
        .await
    }
}

fn role(member: &Membership) -> String {
    member.role.as_str().to_owned()
}

/// A tenant's id or slug; none when empty.
#[expect(clippy::option_option, reason = "whether it could be read, and then whether it was there")]
fn optional_tenant(f: &mut Fields, field: &str, text: &str) -> Option<Option<TenantName>> {
    if text.is_empty() {
        return Some(None);
    }
    f.read(field, TenantName::parse(text)).map(Some)
}

fn kind(ctx: &Ctx) -> v1::CallerKind {
    match ctx.caller {
        Caller::Anonymous => v1::CallerKind::Anonymous,
        Caller::User(_) => v1::CallerKind::User,
        Caller::Service(_) | Caller::Delegated(..) => v1::CallerKind::Service,
        Caller::Operator(_) => v1::CallerKind::Operator,
        Caller::System => v1::CallerKind::System,
    }
}
