//! Exports: everything of one tenant, line by line, for a data request or a move. Read page by page, each in a short
//! transaction of its own, so that a large tenant keeps nobody waiting. Secrets stay here.

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::App;
use crate::ctx::{Caller, Needs, TenantCtx};
use crate::decide::judge::judge;
use crate::domain::api_key::ApiKey;
use crate::domain::domain::DomainName;
use crate::domain::id::TenantId;
use crate::domain::impersonation::Impersonation;
use crate::domain::invitation::Invitation;
use crate::domain::plan::Cycle;
use crate::domain::quota::{EventKind, Scope, read_charges};
use crate::error::Error;
use crate::store::api_keys::{self, Whose};
use crate::store::audit::{self, Audit};
use crate::store::{
    InTenant, TenantTx, billing, domains, entitlements, impersonations, roles, settings, sso, usage, webhooks,
};
use crate::time::Timestamp;

/// Rows on a page.
const PAGE: i64 = 200;

/// Most integrations that a tenant has.
const INTEGRATIONS: i64 = 1000;

/// How far an export has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Head,
    Members(Uuid),
    Invitations(Uuid),
    Parts,
    BillingEvents(String, String),
    Usage(String, Timestamp),
    UsageEvents(String),
    Impersonations(Uuid),
    AuditEvents(Uuid),
    End,
    Over,
}

/// An export that goes on.
pub struct Export {
    place: Place,
    lines: i64,
}

impl App {
    /// Begins an export, and writes down who takes the data along.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn begin_export(&self, t: &TenantCtx) -> Result<Export, Error> {
        // What operators look at is in the log by itself.
        if !matches!(t.ctx.caller, Caller::Operator(_)) {
            let tx = self.store.write(InTenant(t.tenant_id())).await?;
            tx.commit(&t.ctx, Audit::of(t.tenant_id().0).set("export", "everything")).await?;
        }
        Ok(Export { place: Place::Head, lines: 0 })
    }

    /// The next lines; none at the end. Asked anew each time is whether the caller may: the right may be lost meanwhile.
    ///
    /// # Errors
    /// What the gate would refuse with; `DatabaseUnavailable`.
    pub async fn next_lines(&self, t: &TenantCtx, export: &mut Export) -> Result<Option<Vec<String>>, Error> {
        if export.place == Place::Over {
            return Ok(None);
        }
        self.still_allowed(t).await?;
        let (lines, next) = match export.place.clone() {
            Place::Head => (self.head(t).await?, Place::Members(Uuid::nil())),
            Place::Members(after) => self.members(t, after).await?,
            Place::Invitations(after) => self.invitations(t, after).await?,
            Place::Parts => (self.parts(t).await?, Place::BillingEvents(String::new(), String::new())),
            Place::End => (vec![json!({ "type": "end", "lines": export.lines })], Place::Over),
            rest => self.history(t, rest).await?,
        };
        export.place = next;
        export.lines += i64::try_from(lines.len()).unwrap_or(0);
        Ok(Some(lines.iter().map(Json::to_string).collect()))
    }

    /// Asks the gate's questions again, but for how recent the sign-in is: that is asked of whoever begins.
    ///
    /// # Errors
    /// What the gate would refuse with; `DatabaseUnavailable`.
    pub async fn still_allowed(&self, t: &TenantCtx) -> Result<(), Error> {
        let now = self.clock.now();
        self.plane.still_live(&t.ctx.caller, now).await?;
        let standing = self.plane.look_at_rows().standing(t.tenant_id(), &t.ctx.caller, now).await?;
        let needs = Needs { recent_login: false, ..t.needs };
        judge(&standing, &t.ctx.caller, &needs, now).into_iter().next().map_or(Ok(()), Err)
    }

    /// The tenant, its subscription and its settings.
    async fn head(&self, t: &TenantCtx) -> Result<Vec<Json>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let (own, version) = settings::find(&mut tx).await?;
        let settings = json!({ "type": "settings", "settings": own, "version": version });
        Ok(vec![tenant(t), subscription(t), settings])
    }

    async fn members(&self, t: &TenantCtx, after: Uuid) -> Result<(Vec<Json>, Place), Error> {
        let members = self.list_members(t, None, (after, PAGE)).await?;
        // A page may come back shorter than it was read, never empty before the end.
        let next = members
            .last()
            .map_or(Place::Invitations(Uuid::nil()), |last| Place::Members(last.membership.membership_id.0));
        let line = |member: &super::members::Member| {
            let (place, user) = (&member.membership, &member.user);
            json!({
                "type": "member",
                "membership_id": place.membership_id.to_string(),
                "user_id": user.user_id.to_string(),
                "email": user.email.as_str(),
                "display_name": user.display_name,
                "roles": place.roles.texts(),
                "status": place.status.as_str(),
                "join_time": time(place.joined_at),
                "update_time": time(place.updated_at),
                "last_active_time": place.last_active_at.map(time),
            })
        };
        Ok((members.iter().map(line).collect(), next))
    }

    async fn invitations(&self, t: &TenantCtx, after: Uuid) -> Result<(Vec<Json>, Place), Error> {
        let found = self.list_invitations(t, None, (after, PAGE)).await?;
        let next = found.last().map_or(Place::Parts, |last| Place::Invitations(last.invitation_id.0));
        let line = |invitation: &Invitation| {
            json!({
                "type": "invitation",
                "invitation_id": invitation.invitation_id.to_string(),
                "email": invitation.email.as_str(),
                "roles": invitation.roles.texts(),
                "status": invitation.status(t.ctx.now).as_str(),
                "inviter_id": invitation.inviter.map(|user| user.to_string()),
                "create_time": time(invitation.created_at),
                "expire_time": time(invitation.expires_at),
            })
        };
        Ok((found.iter().map(line).collect(), next))
    }

    /// What a tenant has a bounded number of.
    async fn parts(&self, t: &TenantCtx) -> Result<Vec<Json>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let mut lines = Vec::new();
        for role in roles::list(&mut tx).await? {
            lines.push(json!({
                "type": "role",
                "name": role.name.as_str(),
                "rank": role.rank.0,
                "permissions": role.permissions.names(),
                "description": role.description,
                "create_time": time(role.created_at),
                "update_time": time(role.updated_at),
            }));
        }
        for domain in domains::list(&mut tx).await? {
            lines.push(json!({
                "type": "domain",
                "domain": domain.domain.as_str(),
                "status": format!("{:?}", domain.status).to_lowercase(),
                "verify_time": domain.verified_at.map(time),
                "create_time": time(domain.created_at),
            }));
        }
        for integration in settings::list_integrations(&mut tx, INTEGRATIONS).await? {
            lines.push(json!({
                "type": "integration",
                "name": integration.name,
                "config": integration.config,
                "has_secret": integration.has_secret,
                "update_time": time(integration.updated_at),
            }));
        }
        for own in entitlements::list_limits(&mut tx).await? {
            lines.push(json!({
                "type": "limit_override",
                "metric": own.metric,
                "limit": own.limit_value,
                "expire_time": own.expires_at.map(time),
                "reason": own.reason,
                "update_time": time(own.updated_at),
            }));
        }
        for row in entitlements::list_features(&mut tx).await? {
            lines.push(json!({
                "type": "feature",
                "feature": row.feature,
                "enabled": row.switch.enabled,
                "source": format!("{:?}", row.switch.source).to_lowercase(),
                "expire_time": row.switch.expires_at.map(time),
                "update_time": time(row.updated_at),
            }));
        }
        drop(tx);
        lines.extend(self.doors(t).await?);
        Ok(lines)
    }

    /// By which ways others than members come in, and events go out. Secrets stay here.
    async fn doors(&self, t: &TenantCtx) -> Result<Vec<Json>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let mut lines = Vec::new();
        for hook in webhooks::list(&mut tx).await? {
            lines.push(json!({
                "type": "webhook",
                "webhook_id": hook.webhook_id.to_string(),
                "url": hook.url,
                "description": hook.description,
                "event_types": hook.event_types,
                "status": hook.status.as_str(),
                "create_time": time(hook.created_at),
                "update_time": time(hook.updated_at),
            }));
        }
        if let Some((sso, _)) = sso::find(&mut tx).await? {
            lines.push(json!({
                "type": "sso_connection",
                "issuer": sso.terms.issuer,
                "client_id": sso.terms.client_id,
                "default_role": sso.terms.default_role.as_str(),
                "domains": sso.terms.domains.iter().map(DomainName::as_str).collect::<Vec<_>>(),
                "required": sso.terms.required,
                "update_time": time(sso.updated_at),
            }));
        }
        let mut after = Uuid::nil();
        loop {
            let keys = api_keys::list(&mut tx, Whose::All, (after, PAGE)).await?;
            let Some(last) = keys.last() else { return Ok(lines) };
            after = last.api_key_id.0;
            lines.extend(keys.iter().map(api_key));
        }
    }

    /// What grows without end.
    async fn history(&self, t: &TenantCtx, place: Place) -> Result<(Vec<Json>, Place), Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        match place {
            Place::BillingEvents(provider, event) => billing_events(&mut tx, (&provider, &event)).await,
            Place::Usage(metric, period) => usage_of(&mut tx, (&metric, period)).await,
            Place::UsageEvents(key) => usage_events(&mut tx, &key, t.tenant_id()).await,
            Place::Impersonations(before) => impersonations(&mut tx, before).await,
            Place::AuditEvents(event) => audit_events(&mut tx, event).await,
            _ => Ok((Vec::new(), Place::End)),
        }
    }
}

async fn billing_events(tx: &mut TenantTx, after: (&str, &str)) -> Result<(Vec<Json>, Place), Error> {
    let rows = billing::list(tx, after, PAGE).await?;
    let next = rows.last().map(|last| Place::BillingEvents(last.provider.clone(), last.event_id.clone()));
    let line = |row: &billing::BillingEventRow| {
        json!({
            "type": "billing_event",
            "provider": row.provider,
            "event_id": row.event_id,
            "kind": row.kind,
            "time": time(row.at),
            "amount": row.amount,
            "currency": row.currency,
            "applied": row.applied != 0,
        })
    };
    Ok((rows.iter().map(line).collect(), next.unwrap_or(Place::Usage(String::new(), Timestamp::from_micros(0)))))
}

async fn usage_of(tx: &mut TenantTx, after: (&str, Timestamp)) -> Result<(Vec<Json>, Place), Error> {
    let rows = usage::list(tx, after, PAGE).await?;
    let next = rows.last().map(|last| Place::Usage(last.metric.clone(), last.period_start));
    let line = |row: &usage::UsedRow| {
        json!({
            "type": "usage",
            "metric": row.metric,
            "period_start_time": time(row.period_start),
            "used": row.used,
        })
    };
    Ok((rows.iter().map(line).collect(), next.unwrap_or(Place::UsageEvents(String::new()))))
}

async fn usage_events(tx: &mut TenantTx, after: &str, t: TenantId) -> Result<(Vec<Json>, Place), Error> {
    let rows = usage::list_events(tx, after, PAGE).await?;
    let next = rows.last().map(|last| Place::UsageEvents(last.key.clone()));
    let line = |row: &usage::UsageEventRow| {
        json!({
            "type": "usage_event",
            "idempotency_key": row.key,
            "admitted": row.verdict == 1,
            "kind": EventKind::of(row.kind).as_str(),
            "charges": charged(t, row),
            "time": time(row.event_at.unwrap_or(row.decided_at)),
            "decide_time": time(row.decided_at),
            "user_id": row.member_id.map(|id| id.to_string()),
            "api_key_id": row.api_key_id.map(|id| id.to_string()),
            "endpoint": row.endpoint,
            "method": row.method,
            "status_code": row.status,
            "latency_us": row.latency_us,
            "attributes": object(&row.attributes),
        })
    };
    Ok((rows.iter().map(line).collect(), next.unwrap_or(Place::Impersonations(Uuid::max()))))
}

/// What an event charged to the tenant, by metric.
fn charged(tenant: TenantId, row: &usage::UsageEventRow) -> Json {
    if row.verdict != 1 {
        return json!({});
    }
    let charges = read_charges(tenant, &row.charges);
    if charges.is_empty() {
        // As the version before wrote it.
        return object(&row.charges);
    }
    let of_tenant = charges.iter().filter(|charge| charge.account.scope == Scope::Tenant);
    of_tenant.map(|charge| (charge.metric.to_string(), Json::from(charge.amount))).collect()
}

async fn audit_events(tx: &mut TenantTx, after: Uuid) -> Result<(Vec<Json>, Place), Error> {
    let rows = audit::list(tx, after, PAGE).await?;
    let next = rows.last().map(|last| Place::AuditEvents(last.event_id));
    let kinds = ["", "anonymous", "user", "service", "operator", "system", "api_key", "personal_key"];
    let line = |row: &audit::AuditRow| {
        let kind = usize::try_from(row.actor_kind).ok().and_then(|kind| kinds.get(kind)).unwrap_or(&"");
        json!({
            "type": "audit_event",
            "event_id": row.event_id.to_string(),
            "time": time(row.at),
            "actor_kind": kind,
            "actor_id": row.actor_id.map(|id| id.to_string()),
            "on_behalf_of": row.on_behalf_of.map(|id| id.to_string()),
            "action": row.action,
            "subject_id": row.subject_id.map(|id| id.to_string()),
            "changes": object(&row.changes),
            "request_id": row.request_id,
            "source": row.source,
        })
    };
    Ok((rows.iter().map(line).collect(), next.unwrap_or(Place::End)))
}

async fn impersonations(tx: &mut TenantTx, before: Uuid) -> Result<(Vec<Json>, Place), Error> {
    let rows = impersonations::list(tx, before, PAGE).await?;
    let next = rows.last().map(|last| Place::Impersonations(last.session_id.0));
    let line = |row: &Impersonation| {
        json!({
            "type": "impersonation",
            "impersonation_id": row.session_id.to_string(),
            "user_id": row.user_id.to_string(),
            "operator": row.operator_name,
            "reason": row.reason,
            "start_time": time(row.started_at),
            "end_time": time(row.ended_at.unwrap_or(row.expires_at)),
        })
    };
    Ok((rows.iter().map(line).collect(), next.unwrap_or(Place::AuditEvents(Uuid::nil()))))
}

fn api_key(key: &ApiKey) -> Json {
    json!({
        "type": "api_key",
        "api_key_id": key.api_key_id.to_string(),
        "display_name": key.display_name,
        "last4": key.last4,
        "user_id": key.user_id.map(|user| user.to_string()),
        "permissions": key.permissions.names(),
        "creator_id": key.created_by.map(|id| id.to_string()),
        "create_time": time(key.created_at),
        "expire_time": key.expires_at.map(time),
        "last_use_time": key.last_used_at.map(time),
    })
}

fn tenant(t: &TenantCtx) -> Json {
    let (tenant, now) = (&t.tenant, t.ctx.now);
    json!({
        "type": "tenant",
        "tenant_id": tenant.tenant_id.to_string(),
        "slug": tenant.slug.as_str(),
        "display_name": tenant.display_name,
        "status": tenant.status(now).as_str(),
        "suspend_reason": tenant.suspend_reason(now),
        "verified": tenant.flags.verified,
        "demo": tenant.flags.demo,
        "maintenance": tenant.flags.maintenance,
        "external_id": tenant.external_id,
        "create_time": time(tenant.created_at),
        "update_time": time(tenant.updated_at),
        "delete_time": tenant.deleted_at.map(time),
        "purge_time": tenant.purge_at.map(time),
    })
}

fn subscription(t: &TenantCtx) -> Json {
    let s = &t.tenant.subscription;
    let cycle = |cycle: Cycle| if cycle == Cycle::Year { "year" } else { "month" };
    json!({
        "type": "subscription",
        "plan": s.of.plan,
        "plan_version": s.of.version,
        "status": s.status.as_str(),
        "cycle": s.cycle.map(cycle),
        "price": s.price,
        "currency": s.currency,
        "period_start_time": s.period_start.map(time),
        "period_end_time": s.period_end.map(time),
        "paid_until_time": s.paid_until.map(time),
        "trial_end_time": s.trial_end.map(time),
        "grace_end_time": s.grace_end.map(time),
        "cancel_at_period_end": s.cancel_at_period_end,
        "next_plan": s.next.as_ref().map(|next| next.of.plan.as_str()),
        "pause_time": s.paused_at.map(time),
        "cancel_time": s.cancelled_at.map(time),
        "provider_ids": {
            "customer": s.provider.customer,
            "subscription": s.provider.subscription,
            "payment_method": s.provider.payment_method,
        },
    })
}

/// An instant with all its digits.
fn time(at: Timestamp) -> String {
    at.utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// JSON out of a row.
fn object(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::Object(Map::new()))
}
