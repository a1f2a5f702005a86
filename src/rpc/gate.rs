//! The gate: from the headers of a request to a `Ctx`, or a refusal. It enforces the access table; no method tests a
//! role by hand, and a use case that needs a tenant can only be called with the `TenantCtx` that the gate made.
//!
//! Order of refusals, fixed: malformed metadata, credential, kind of caller, tenant, member suspended, tenant's status,
//! assurance, permission; then, in the services, body and rules. For users all of it is decided on the headers, before
//! a byte of the body is read. Operators and services may name the tenant in the request; then the steps from the
//! tenant on follow the decoding.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use ipnet::IpNet;
use tokio::sync::watch;
use tonic::{Request, Status, Streaming};
use tracing::Span;
use uuid::Uuid;

use super::access::{Access, TenantRule, Who};
use super::stream::{StreamTurn, Streams};
use super::v1;
use crate::app::App;
use crate::ctx::{Caller, Ctx, Needs, TenantCtx};
use crate::decide::judge::{is_stale, judge, permissions};
use crate::decide::memory::Look;
use crate::decide::tenant::{Claims, Standing};
use crate::domain::cursor::Cursor;
use crate::domain::host::{HostClaim, host_name};
use crate::domain::id::TenantId;
use crate::domain::name::TenantName;
use crate::error::Error;

/// A request message that names its tenant.
pub(super) trait TenantNamed {
    /// Id or slug; empty when it leaves it to the credential.
    fn tenant(&self) -> &str;
}
include!(concat!(env!("OUT_DIR"), "/tenant_named.rs"));

/// The gate.
pub struct Gate {
    /// What it asks.
    pub app: Arc<App>,
    /// Whose `x-forwarded-host` and `x-forwarded-for` count.
    pub trusted_proxies: Vec<IpNet>,
    /// Who has how many streams.
    pub streams: Arc<Streams>,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

/// A request that was let in so far.
#[derive(Clone)]
struct Admission {
    ctx: Ctx,
    access: &'static Access,
    claims: Claims,
    entered: Option<TenantCtx>,
}

impl Gate {
    /// Decides on the headers, and puts what it found into the request for `enter` and `open`.
    ///
    /// # Errors
    /// The first reason that speaks against the call.
    pub async fn admit(&self, access: &'static Access, request_id: Uuid, parts: &mut Parts) -> Result<(), Error> {
        let source = self.source(parts)?;
        let ctx =
            Ctx { request_id, method: access.name(), now: self.app.clock.now(), source, caller: Caller::Anonymous };
        let looked_at = access.also_user && CREDENTIALS.iter().any(|name| parts.headers.contains_key(*name));
        if access.who == Who::Public && !looked_at {
            return self.let_in(parts, Admission { ctx, access, claims: Claims::default(), entered: None }).await;
        }
        let credential = credential(&parts.headers)?;
        let on_behalf_of = one(&parts.headers, "x-on-behalf-of")?;
        let mut at_least = match one(&parts.headers, AT_LEAST)? {
            Some(text) => Some(Cursor::parse(text).ok_or(Error::MetadataMalformed(AT_LEAST))?),
            None => None,
        };
        let claims = match access.tenant {
            // A decision has no tenant of its own, but a user's question is about the tenant that their call names.
            TenantRule::None if !DECISIONS.contains(&access.name()) => Claims::default(),
            _ => self.claims(parts)?,
        };
        let mut look = self.app.plane.look();
        let (mut admission, entered) = loop {
            let caller = self.caller(&mut look, credential, on_behalf_of, &ctx).await;
            let decided = match caller {
                Ok(caller) => {
                    let claims = Claims { token: caller.own_tenant(), ..claims.clone() };
                    let admission = Admission { ctx: Ctx { caller, ..ctx.clone() }, access, claims, entered: None };
                    let entered = self.enter_by_headers(&mut look, &admission).await;
                    Ok((admission, entered))
                }
                Err(error) => Err(error),
            };
            if !look.holds().await {
                continue;
            }
            // Who it is comes first: strangers have nothing looked up.
            match at_least.take() {
                Some(revision) if decided.is_ok() => self.app.plane.reach(revision).await?,
                Some(revision) if credential.is_some() => self.app.plane.catch_up(revision).await?,
                _ => break decided?,
            }
            look = self.app.plane.look();
        };
        let caller = &admission.ctx.caller;
        Span::current().record("caller", caller.kind());
        if let Some(id) = caller.principal() {
            Span::current().record("caller_id", tracing::field::display(id));
        }
        self.app.key_uses.note_caller(caller, ctx.now);
        admission.entered =
            entered.inspect_err(|error| self.app.denials.note(&admission.ctx, &admission.claims, error))?;
        if let Some(t) = &admission.entered {
            self.note_entered(t);
        }
        self.let_in(parts, admission).await
    }

    async fn let_in(&self, parts: &mut Parts, admission: Admission) -> Result<(), Error> {
        // What has a request_id counts against its rate when it works; the rest counts when it arrives.
        if !admission.access.repeatable {
            let tenant = admission.entered.as_ref().map(TenantCtx::tenant_id);
            self.app.charge_alone(&admission.ctx, tenant).await?;
        }
        parts.extensions.insert(admission);
        Ok(())
    }

    /// For a method in a tenant: the call and its request. `TenantCtx` comes from nowhere else.
    pub(super) async fn enter<R: TenantNamed>(&self, request: Request<R>) -> Result<(TenantCtx, R), Error> {
        let (admission, message) = admission(request)?;
        let t = self.enter_as(admission, message.tenant()).await?;
        Ok((t, message))
    }

    /// For a method that services and operators call for all tenants unless they name one, and others in theirs.
    pub(super) async fn enter_any<R: TenantNamed>(
        &self,
        request: Request<R>,
    ) -> Result<(Ctx, Option<TenantCtx>, R), Error> {
        let (admission, message) = admission(request)?;
        let of_platform = matches!(admission.ctx.caller, Caller::Service(_) | Caller::Operator(_));
        if admission.entered.is_some() || !message.tenant().is_empty() || !of_platform {
            let t = self.enter_as(admission, message.tenant()).await?;
            return Ok((t.ctx.clone(), Some(t), message));
        }
        if let (Who::Permission(permission), Caller::Service(key)) = (admission.access.who, &admission.ctx.caller)
            && !key.permissions.contains(permission)
        {
            return Err(Error::PermissionMissing(permission.to_owned()));
        }
        self.app.note_operator_read(&admission.ctx, None).await?;
        Ok((admission.ctx, None, message))
    }

    /// The same for a method whose requests come as a stream: the first of them names the tenant, if any does.
    pub(super) async fn enter_stream<R: TenantNamed>(
        &self,
        request: Request<Streaming<R>>,
    ) -> Result<(TenantCtx, Option<R>, Streaming<R>), Error> {
        let (admission, mut stream) = admission(request)?;
        let broken = |status: Status| Error::BodyMalformed(status.message().chars().take(200).collect());
        let first = stream.message().await.map_err(broken)?;
        let t = self.enter_as(admission, first.as_ref().map_or("", TenantNamed::tenant)).await?;
        Ok((t, first, stream))
    }

    async fn enter_as(&self, admission: Admission, tenant: &str) -> Result<TenantCtx, Error> {
        let named = match tenant {
            "" => None,
            text => Some(TenantName::parse(text).map_err(|problem| Error::field("tenant", problem))?),
        };
        let t = if let Some(t) = admission.entered {
            let same = match &named {
                None => true,
                Some(TenantName::Slug(slug)) if *slug == t.tenant.slug => true,
                // An earlier slug leads to the tenant as well.
                Some(name) => self.app.plane.look_at_rows().find(name, t.ctx.now).await? == Some(t.tenant_id()),
            };
            if !same {
                let claims = Claims { request: named, ..admission.claims };
                self.app.denials.note(&t.ctx, &claims, &Error::TenantConflict);
                return Err(Error::TenantConflict);
            }
            t
        } else {
            let claims = Claims { request: Some(named.ok_or(Error::TenantMissing)?), ..admission.claims };
            self.enter_by_request(&admission.ctx, admission.access, &claims)
                .await
                .inspect_err(|error| self.app.denials.note(&admission.ctx, &claims, error))?
        };
        if !admission.access.writes {
            self.app.note_operator_read(&t.ctx, Some(t.tenant_id())).await?;
        }
        Ok(t)
    }

    /// For a method without a tenant, or with one where there is one: the call and its request.
    pub(super) async fn open<R>(&self, request: Request<R>) -> Result<(Ctx, Option<TenantCtx>, Claims, R), Error> {
        let (admission, message) = admission(request)?;
        if admission.access.tenant == TenantRule::Required {
            return Err(Error::internal("a method in a tenant was not entered"));
        }
        if !admission.access.writes {
            let tenant = admission.entered.as_ref().map(TenantCtx::tenant_id);
            self.app.note_operator_read(&admission.ctx, tenant).await?;
        }
        Ok((admission.ctx, admission.entered, admission.claims, message))
    }

    /// A call that goes on, as of now: whose credential is no good any more goes on no more.
    pub(super) async fn again(&self, ctx: &Ctx, headers: &HeaderMap) -> Result<Ctx, Error> {
        let ctx = Ctx { now: self.app.clock.now(), ..ctx.clone() };
        let (credential, on_behalf_of) = (credential(headers)?, one(headers, "x-on-behalf-of")?);
        let mut look = self.app.plane.look();
        loop {
            let caller = self.caller(&mut look, credential, on_behalf_of, &ctx).await;
            if look.holds().await {
                return Ok(Ctx { caller: caller?, ..ctx });
            }
        }
    }

    /// A turn for a stream, for whoever was let in with it.
    pub(super) fn stream_turn<R>(&self, request: &Request<R>) -> Result<StreamTurn, Error> {
        let admission = request.extensions().get::<Admission>();
        self.streams.take(admission.and_then(|admission| admission.ctx.caller.principal()))
    }

    /// Who calls.
    async fn caller(
        &self,
        look: &mut Look<'_>,
        credential: Option<&str>,
        on_behalf_of: Option<&str>,
        ctx: &Ctx,
    ) -> Result<Caller, Error> {
        let credential = credential.ok_or(Error::CredentialMissing)?;
        let caller = look.identify(credential, ctx.now).await?;
        match (caller, on_behalf_of) {
            (Caller::Service(key), Some(token)) => {
                let person = look.person(token, ctx.now).await?;
                Ok(Caller::Delegated(key, Arc::new(person)))
            }
            // Only services speak for others; to ignore the header would answer for the wrong person.
            (_, Some(_)) => Err(Error::MetadataMalformed("x-on-behalf-of")),
            (caller, None) => Ok(caller),
        }
    }

    /// The tenant that the headers name, if the caller has a place in it. None when there is no need of one, or when the
    /// request itself has to say.
    async fn enter_by_headers(&self, look: &mut Look<'_>, admission: &Admission) -> Result<Option<TenantCtx>, Error> {
        let (ctx, claims) = (&admission.ctx, &admission.claims);
        may_call(admission.access, &ctx.caller)?;
        if admission.access.tenant == TenantRule::None {
            // Without a tenant there is no standing to judge: what the key holds is all there is.
            if let (Who::Service(permission), Some(key)) = (admission.access.who, ctx.caller.key())
                && !key.permissions.contains(permission)
            {
                return Err(Error::PermissionMissing(permission.to_owned()));
            }
            // What is without a tenant is the account's own.
            if let Some(person) = ctx.caller.person()
                && !admission.access.allow_bound
                && person.session.bound_tenant.is_some()
            {
                return Err(Error::SessionBound);
            }
            if admission.access.recent_login && is_stale(&ctx.caller, ctx.now) {
                return Err(Error::RecentLoginRequired);
            }
            return Ok(None);
        }
        let mut tenant = look.locate(claims, ctx.now).await?;
        if tenant.is_none()
            && let Caller::User(person) = &ctx.caller
        {
            tenant = self.app.fallback(person, ctx.now).await?;
        }
        match tenant {
            Some(tenant) => enter_tenant(look, ctx, admission.access, tenant).await.map(Some),
            None if admission.access.tenant == TenantRule::Required && matches!(ctx.caller, Caller::User(_)) => {
                Err(Error::TenantMissing)
            }
            None => Ok(None),
        }
    }

    /// The tenant that the request names, for operators and services.
    async fn enter_by_request(&self, ctx: &Ctx, access: &'static Access, claims: &Claims) -> Result<TenantCtx, Error> {
        let mut look = self.app.plane.look();
        let entered = loop {
            let entered = match look.locate(claims, ctx.now).await {
                Ok(Some(tenant)) => enter_tenant(&mut look, ctx, access, tenant).await,
                Ok(None) => Err(Error::TenantMissing),
                Err(error) => Err(error),
            };
            if look.holds().await {
                break entered?;
            }
        };
        self.note_entered(&entered);
        Ok(entered)
    }

    /// Notes who was let in where.
    fn note_entered(&self, t: &TenantCtx) {
        Span::current().record("tenant", tracing::field::display(t.tenant_id()));
        if let Some(member) = &t.member {
            self.app.activity.note_member(t.tenant_id(), member, t.ctx.now);
        }
    }

    /// What the headers claim about the tenant.
    fn claims(&self, parts: &Parts) -> Result<Claims, Error> {
        let header = match one(&parts.headers, "x-tenant-id")? {
            Some(text) => Some(TenantName::parse(text).map_err(|_| Error::MetadataMalformed("x-tenant-id"))?),
            None => None,
        };
        Ok(Claims { token: None, header, host: self.host_claim(parts)?, request: None })
    }

    /// What the host says about the tenant, where there is a base domain.
    fn host_claim(&self, parts: &Parts) -> Result<HostClaim, Error> {
        if self.app.hosts.base_domain.is_none() {
            return Ok(HostClaim::Nothing);
        }
        let forwarded = if self.trusts(peer(parts)) { one(&parts.headers, "x-forwarded-host")? } else { None };
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let Some(host) = forwarded.or(authority) else { return Ok(HostClaim::Nothing) };
        let host = host_name(host).ok_or(Error::MetadataMalformed(if forwarded.is_some() {
            "x-forwarded-host"
        } else {
            ":authority"
        }))?;
        Ok(self.app.hosts.claim(&host))
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let peer = peer.map(|ip| ip.to_canonical());
        peer.is_some_and(|peer| self.trusted_proxies.iter().any(|net| net.contains(&peer)))
    }

    /// The caller's address: the peer's, or, behind trusted proxies, the last one that is none of theirs.
    fn source(&self, parts: &Parts) -> Result<Option<IpAddr>, Error> {
        let peer = peer(parts);
        if !self.trusts(peer) {
            return Ok(peer);
        }
        let malformed = || Error::MetadataMalformed("x-forwarded-for");
        // Some proxies add to the line, some add a line: the last address of the last line is the nearest hop.
        let lines: Vec<_> = parts.headers.get_all("x-forwarded-for").iter().collect();
        for line in lines.into_iter().rev() {
            for hop in line.to_str().map_err(|_| malformed())?.rsplit(',') {
                let hop = hop.trim().parse().map_err(|_| malformed())?;
                if !self.trusts(Some(hop)) {
                    return Ok(Some(hop));
                }
            }
        }
        Ok(peer)
    }
}

/// A call's place in a tenant, if it may be made there.
async fn enter_tenant(
    look: &mut Look<'_>,
    ctx: &Ctx,
    access: &'static Access,
    tenant: TenantId,
) -> Result<TenantCtx, Error> {
    let standing = look.standing(tenant, &ctx.caller, ctx.now).await?;
    let permission = match &access.who {
        Who::Permission(permission) | Who::Service(permission) => std::slice::from_ref(permission),
        _ => &[],
    };
    let needs = Needs {
        permissions: permission,
        allow_suspended: access.allow_suspended,
        allow_cancelled: access.allow_cancelled,
        allow_pending: access.allow_pending,
        allow_deleted: access.allow_deleted,
        writes: access.writes && !access.allow_maintenance,
        allow_mfa_missing: access.allow_mfa_missing,
        recent_login: access.recent_login,
        deny_impersonated: access.deny_impersonated,
    };
    if let Some(reason) = judge(&standing, &ctx.caller, &needs, ctx.now).into_iter().next() {
        return Err(reason);
    }
    let permissions = permissions(&standing, &ctx.caller);
    let Standing { tenant, catalogue, policy, roles, member, .. } = standing;
    Ok(TenantCtx { ctx: ctx.clone(), tenant, catalogue, policy, roles, member, permissions, needs })
}

/// The methods whose questions carry their own tenant.
const DECISIONS: [&str; 4] = [
    "AuthService/Authorize",
    "AuthService/BatchAuthorize",
    "AuthService/AuthorizeStream",
    "AuthService/TestPermissions",
];

fn admission<R>(request: Request<R>) -> Result<(Admission, R), Error> {
    let (_, mut extensions, message) = request.into_parts();
    let admission = extensions.remove::<Admission>();
    admission.map(|a| (a, message)).ok_or_else(|| Error::internal("a request came past the gate"))
}

/// Whether callers of this kind may call the method at all.
fn may_call(access: &Access, caller: &Caller) -> Result<(), Error> {
    let may = match (&access.who, caller) {
        // A credential that is looked at is a person's.
        (Who::Public, Caller::User(_) | Caller::Delegated(..))
        | (Who::Operator, Caller::Operator(_))
        | (Who::Service(_), Caller::Service(_) | Caller::Operator(_)) => true,
        (Who::Public, _) => !access.also_user,
        (Who::Operator | Who::Service(_), _) | (_, Caller::Anonymous | Caller::Named(_) | Caller::System) => false,
        (Who::Permission(_), Caller::Key(_) | Caller::Personal(..)) => !access.deny_api_key,
        (Who::Permission(_), _) | (Who::SignedIn, Caller::User(_) | Caller::Delegated(..)) => true,
        (Who::SignedIn, Caller::Key(_)) => access.also_api_key,
        (Who::SignedIn, Caller::Personal(..)) => access.also_personal_key,
        (Who::SignedIn, Caller::Service(_)) => access.also_service,
        (Who::SignedIn, Caller::Operator(_)) => access.also_operator,
    };
    if !may {
        return Err(Error::CallerKindRefused(caller.kind()));
    }
    match caller {
        Caller::Operator(key) if key.scope < access.scope() => {
            Err(Error::OperatorScopeMissing(access.scope().as_str()))
        }
        _ => Ok(()),
    }
}

/// The revision that the answer is to be no older than.
const AT_LEAST: &str = "tenantry-at-least-revision";

/// Where a credential may be.
const CREDENTIALS: [&str; 2] = ["authorization", "x-api-key"];

/// The one credential of a request, if there is one.
fn credential(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let ambiguous = |error| match error {
        Error::MetadataMalformed(_) => Error::CredentialAmbiguous,
        other => other,
    };
    for name in CREDENTIALS {
        if headers.get_all(name).iter().count() > 1 {
            return Err(Error::CredentialAmbiguous);
        }
    }
    let (bearer, key) = (one(headers, "authorization")?, one(headers, "x-api-key").map_err(ambiguous)?);
    match (bearer, key) {
        (Some(_), Some(_)) => Err(Error::CredentialAmbiguous),
        (None, key) => Ok(key),
        (Some(bearer), None) => {
            let (scheme, token) = bearer.split_once(' ').ok_or(Error::MetadataMalformed("authorization"))?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(Error::MetadataMalformed("authorization"));
            }
            Ok(Some(token.trim()))
        }
    }
}

/// The single value of a header, in printable ASCII; none when absent. Twice, or a list, is not one value.
fn one<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.as_bytes().contains(&b',') {
        return Err(Error::MetadataMalformed(name));
    }
    value.to_str().map(Some).map_err(|_| Error::MetadataMalformed(name))
}

fn peer(parts: &Parts) -> Option<IpAddr> {
    use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
    let plain = parts.extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let tls = || parts.extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(|tls| tls.get_ref().remote_addr());
    plain.or_else(tls).map(|address| address.ip())
}
