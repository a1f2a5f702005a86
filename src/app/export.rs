//! Export: everything of one tenant as lines of JSON, secrets left out. Read in pages, each in a short transaction of its
//! own, so that a large tenant holds nothing up; whoever loses the right meanwhile gets no further page.

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::App;
use crate::ctx::{Ctx, TenantCtx};
use crate::error::Error;
use crate::store::{InTenant, billing, domains, entitlements, export, memberships, settings};

/// How many rows are read at once.
const PAGE: i64 = 200;

/// Where an export stands.
#[derive(Debug, Clone)]
pub struct Export {
    part: Part,
    after: (String, String),
    lines: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Members,
    Billing,
    Usage,
    UsageEvents,
    Audit,
    End,
}

impl Default for Export {
    fn default() -> Self {
        Self { part: Part::Head, after: (String::new(), String::new()), lines: 0 }
    }
}

impl App {
    /// Writes down that somebody exports the tenant, before they see anything.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn note_export(&self, t: &TenantCtx) -> Result<(), Error> {
        let audit = crate::store::audit::Audit::of(t.tenant_id().0).set("exported", true);
        self.store.write(InTenant(t.tenant_id())).await?.commit(&t.ctx, audit).await
    }

    /// The next lines of an export; none when it is over. Who asks must still have the right to.
    ///
    /// # Errors
    /// What speaks against going on.
    pub async fn export_page(&self, t: &TenantCtx, export: &mut Export) -> Result<Option<Vec<String>>, Error> {
        if export.part == Part::End {
            return Ok(None);
        }
        let now = Ctx { now: self.clock.now(), ..t.ctx.clone() };
        self.plane.still_may(&now, t).await?;
        let (found, next) = match export.part {
            Part::Head => (self.head(t).await?, Part::Members),
            Part::Members => self.members_page(t, export).await?,
            Part::Billing => self.billing_page(t, export).await?,
            Part::Usage => self.usage_page(t, export).await?,
            Part::UsageEvents => self.events_page(t, export).await?,
            Part::Audit => self.audit_page(t, export).await?,
            Part::End => return Ok(None),
        };
        if next != export.part {
            export.after = (String::new(), String::new());
        }
        export.part = next;
        let mut lines: Vec<String> = found.iter().map(Json::to_string).collect();
        export.lines += u64::try_from(lines.len()).unwrap_or(0);
        if next == Part::End {
            lines.push(json!({ "type": "end", "lines": export.lines }).to_string());
        }
        Ok(Some(lines))
    }

    /// What there is once, or little of.
    async fn head(&self, t: &TenantCtx) -> Result<Vec<Json>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let tenant = &t.tenant;
        let mut lines = vec![
            json!({
                "type": "tenant", "tenant_id": tenant.tenant_id, "slug": tenant.slug, "display_name": tenant.display_name,
                "status": tenant.status(t.ctx.now).as_str(), "suspend_reason": tenant.suspend_reason(t.ctx.now),
                "flags": tenant.flags, "external_id": tenant.external_id, "create_time": tenant.created_at.to_string(),
            }),
            json!({ "type": "subscription", "subscription": tenant.subscription }),
        ];
        let (own, _) = settings::find(&mut tx).await?;
        lines.push(json!({ "type": "settings", "settings": own }));
        for domain in domains::list(&mut tx).await? {
            // The token that proves it is left out.
            lines.push(json!({
                "type": "domain", "domain": domain.domain.as_str(), "status": domain.status.as_str(),
                "create_time": domain.created_at.to_string(),
            }));
        }
        for integration in settings::list_integrations(&mut tx, 1000).await? {
            let has_secret = integration.secret_updated_at.is_some();
            lines.push(json!({
                "type": "integration", "name": integration.name, "config": integration.config, "has_secret": has_secret,
            }));
        }
        for own in entitlements::list_limits(&mut tx).await? {
            lines.push(json!({
                "type": "limit_override", "metric": own.metric, "limit": own.limit_value,
                "expire_time": own.expires_at.map(|at| at.to_string()), "reason": own.reason,
            }));
        }
        for own in entitlements::list_features(&mut tx).await? {
            lines.push(json!({
                "type": "feature", "feature": own.feature, "enabled": own.switch.enabled,
                "expire_time": own.switch.expires_at.map(|at| at.to_string()),
            }));
        }
        Ok(lines)
    }

    async fn members_page(&self, t: &TenantCtx, export: &mut Export) -> Result<(Vec<Json>, Part), Error> {
        let after = Uuid::try_parse(&export.after.0).unwrap_or_default();
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let page = memberships::list(&mut tx, after, None, PAGE).await?;
        drop(tx);
        let users = self.store.list_users_of(t.tenant_id(), &page).await?;
        let line = |member: &crate::domain::membership::Membership| {
            let user = users.iter().find(|user| user.user_id == member.user_id);
            json!({
                "type": "member", "membership_id": member.membership_id, "user_id": member.user_id,
                "email": user.map(|user| user.email.as_str()), "display_name": user.map(|user| &user.display_name),
                "role": member.role, "status": member.status, "join_time": member.joined_at.to_string(),
            })
        };
        let lines = page.iter().map(line).collect();
        let Some(last) = page.last() else { return Ok((lines, Part::Billing)) };
        export.after.0 = last.membership_id.to_string();
        Ok((lines, Part::Members))
    }

    async fn billing_page(&self, t: &TenantCtx, export: &mut Export) -> Result<(Vec<Json>, Part), Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let page = billing::list(&mut tx, (&export.after.0, &export.after.1), PAGE).await?;
        let line = |event: &billing::BillingEventRow| {
            json!({
                "type": "billing_event", "provider": event.provider, "event_id": event.event_id, "kind": event.kind,
                "time": event.at.to_string(), "amount": event.amount, "currency": event.currency,
            })
        };
        let lines = page.iter().map(line).collect();
        let Some(last) = page.last() else { return Ok((lines, Part::Usage)) };
        export.after = (last.provider.clone(), last.event_id.clone());
        Ok((lines, Part::Billing))
    }

    async fn usage_page(&self, t: &TenantCtx, export: &mut Export) -> Result<(Vec<Json>, Part), Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let page = export::list_usage(&mut tx, (&export.after.0, &export.after.1), PAGE).await?;
        let line = |row: &export::UsageRow| {
            json!({
                "type": "usage", "metric": row.metric, "period_start_time": row.period_start.to_string(), "used": row.committed,
            })
        };
        let lines = page.iter().map(line).collect();
        let Some(last) = page.last() else { return Ok((lines, Part::UsageEvents)) };
        export.after = (last.metric.clone(), last.period_start.micros().to_string());
        Ok((lines, Part::Usage))
    }

    async fn events_page(&self, t: &TenantCtx, export: &mut Export) -> Result<(Vec<Json>, Part), Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let page = export::list_events(&mut tx, &export.after.0, PAGE).await?;
        let line = |row: &export::EventRow| {
            let charges: Json = serde_json::from_str(&row.charges).unwrap_or_default();
            json!({
                "type": "usage_event", "idempotency_key": row.key, "admitted": row.verdict == 1, "amounts": charges,
                "time": row.decided_at.to_string(),
            })
        };
        let lines = page.iter().map(line).collect();
        let Some(last) = page.last() else { return Ok((lines, Part::Audit)) };
        export.after.0.clone_from(&last.key);
        Ok((lines, Part::UsageEvents))
    }

    async fn audit_page(&self, t: &TenantCtx, export: &mut Export) -> Result<(Vec<Json>, Part), Error> {
        let after = Uuid::try_parse(&export.after.0).unwrap_or_default();
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let page = export::list_audit(&mut tx, after, PAGE).await?;
        let line = |row: &export::AuditRow| {
            let changes: Json = serde_json::from_str(&row.changes).unwrap_or_default();
            json!({
                "type": "audit_event", "event_id": row.event_id, "time": row.at.to_string(), "actor_kind": row.actor_kind,
                "actor_id": row.actor_id, "action": row.action, "subject_id": row.subject_id, "changes": changes,
            })
        };
        let lines = page.iter().map(line).collect();
        let Some(last) = page.last() else { return Ok((lines, Part::End)) };
        export.after.0 = last.event_id.to_string();
        Ok((lines, Part::Audit))
    }
}
