//! Tenants made and ended as a whole, and their flags.

use tonic::Request;

use crate::app::provisioning::{Ending, FlagChanges, Step, StepOutcome, Wish};
use crate::app::purge::PurgeReport;
use crate::domain::mail::Template;
use crate::domain::name::{Email, Slug, TenantName, display_name};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, settings, v1};

pub(super) async fn provision_tenant(
    s: &Services,
    request: Request<v1::ProvisionTenantRequest>,
) -> Result<v1::ProvisionTenantResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("display_name", display_name(&m.display_name));
    let slug = f.read("slug", Slug::choose(&m.slug));
    f.plan("template", &m.template);
    f.plan("plan", &m.plan);
    let cycle = f.cycle("cycle", m.cycle);
    let trial = f.trial("trial", m.trial.as_ref());
    let email = f.read("admin_email", Email::parse(&m.admin_email));
    let admin_name = if m.admin_name.is_empty() { m.admin_email.clone() } else { m.admin_name.clone() };
    let admin_name = f.read("admin_name", display_name(&admin_name));
    let own = settings::read(&mut f, m.settings.clone().unwrap_or_default());
    settings::check(&mut f, &own, &s.0.app.plane.catalogues.seen().definition.roles);
    let features = if m.features.len() <= 200 { Ok(()) } else { Err("must be at most 200") };
    f.read("features", features);
    let external_id = f.external_id("external_id", &m.external_id);
    let once = !(m.pending && m.invite_admin);
    f.read(
        "pending",
        if once { Ok(()) } else { Err("is said by `invite_admin`: the tenant waits for the acceptance") },
    );
    let (Some(key), Some(display_name), Some(slug), Some(cycle), Some(trial)) = (key, name, slug, cycle, trial) else {
        return Err(f.refuse());
    };
    let (Some(admin_email), Some(admin_name), Some(external_id), true) = (email, admin_name, external_id, f.is_clean())
    else {
        return Err(f.refuse());
    };
    let wish = Wish {
        display_name,
        slug,
        template: m.template,
        plan: m.plan,
        cycle,
        trial,
        admin_email,
        admin_name,
        settings: own,
        features: m.features,
        external_id,
        demo: m.demo,
        pending: m.pending,
        by_invitation: m.invite_admin,
        welcome_mail: !m.skip_welcome_mail,
        validate_only: m.validate_only,
    };
    let done = s.0.app.provision_tenant(&ctx, &wish, key).await?;
    let mut tenant = convert::tenant(&done.tenant, ctx.now);
    if done.tenant.tenant_id.0.is_nil() {
        tenant.tenant_id.clear();
        tenant.etag.clear();
    }
    let mut admin = convert::user(&done.admin);
    if done.admin.user_id.0.is_nil() {
        admin.user_id.clear();
    }
    Ok(v1::ProvisionTenantResponse {
        tenant: Some(tenant),
        admin: Some(admin),
        admin_password: done.password.expose().clone(),
        steps: done.steps.iter().map(step).collect(),
        invitation_link: match done.invitation_token.expose().as_str() {
            "" => String::new(),
            _ => s.0.app.letters.link(Template::Invitation, Some(&done.invitation_token)),
        },
        invitation_token: done.invitation_token.expose().clone(),
    })
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
    let ending =
        Ending { confirm_slug: m.confirm_slug, delete_data: m.delete_data, reason, validate_only: m.validate_only };
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
