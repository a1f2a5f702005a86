//! Tenants made and ended as a whole, and their flags.

use tonic::Request;

use crate::app::provisioning::{Ending, FlagChanges, Step, StepOutcome};
use crate::app::purge::PurgeReport;
use crate::domain::name::TenantName;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn provision_tenant(
    _: &Services,
    _: Request<v1::ProvisionTenantRequest>,
) -> Result<v1::ProvisionTenantResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn deprovision_tenant(
    s: &Services,
    request: Request<v1::DeprovisionTenantRequest>,
) -> Result<v1::DeprovisionTenantResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let reason = f.text("reason", &m.reason, 200);
    let (Some(key), Some(reason)) = (key, reason) else { return Err(f.refuse()) };
    let ending = Ending {
        confirm_slug: m.confirm_slug,
        delete_data: m.delete_data,
        reason,
        validate_only: m.validate_only,
    };
    let (tenant, steps) = s.0.app.deprovision_tenant(&t, &ending, key).await?;
    Ok(v1::DeprovisionTenantResponse {
        tenant: Some(convert::tenant(&tenant, t.ctx.now)),
        steps: steps.iter().map(step).collect(),
    })
}

pub(super) async fn purge_tenant(
    s: &Services,
    request: Request<v1::PurgeTenantRequest>,
) -> Result<v1::PurgeTenantResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("tenant", TenantName::parse(&m.tenant));
    let (Some(key), Some(name)) = (key, name) else { return Err(f.refuse()) };
    let report = s.0.app.purge_tenant(&ctx, &name, &m.confirm_slug, m.validate_only, key).await?;
    Ok(purged(report))
}

pub(super) async fn set_tenant_flags(
    s: &Services,
    request: Request<v1::SetTenantFlagsRequest>,
) -> Result<v1::SetTenantFlagsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let said = m.verified.or(m.demo).or(m.maintenance).is_some();
    f.read("verified", if said { Ok(()) } else { Err("or `demo` or `maintenance` must be said") });
    let (Some(key), true) = (key, said) else { return Err(f.refuse()) };
    let changes = FlagChanges { verified: m.verified, demo: m.demo, maintenance: m.maintenance };
    let tenant = s.0.app.set_tenant_flags(&t, changes, key).await?;
    Ok(v1::SetTenantFlagsResponse { tenant: Some(convert::tenant(&tenant, t.ctx.now)) })
}

fn step(step: &Step) -> v1::ProvisionStep {
    let outcome = match step.outcome {
        StepOutcome::Done => v1::ProvisionOutcome::Done,
        StepOutcome::AlreadyDone => v1::ProvisionOutcome::AlreadyDone,
        StepOutcome::Skipped => v1::ProvisionOutcome::Skipped,
    };
    v1::ProvisionStep { step: step.step.clone(), outcome: outcome.into(), detail: step.detail.clone() }
}

fn purged(report: PurgeReport) -> v1::PurgeTenantResponse {
    let table = |(table, rows)| v1::PurgedTable { table, rows };
    v1::PurgeTenantResponse { tables: report.tables.into_iter().map(table).collect(), finished: report.finished }
}
