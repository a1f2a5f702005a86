//! Tenants themselves: creation, changes, life and end.

use tonic::Request;

use crate::app::tenants::TenantFilter;
use crate::decide::tenant::HostClaim;
use crate::domain::name::{Email, Slug, TenantName, display_name};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::gate::{host_name, tenant_of_host};
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};

pub(super) async fn create_tenant(
    s: &Services,
    request: Request<v1::CreateTenantRequest>,
) -> Result<v1::CreateTenantResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("display_name", display_name(&m.display_name));
    let slug = f.read("slug", Slug::choose(&m.slug));
    let owner = match m.owner_email.as_str() {
        "" => Some(None),
        text => f.read("owner_email", Email::parse(text)).map(Some),
    };
    let plan = f.plan("plan", &m.plan);
    let (Some(key), Some(name), Some(slug), Some(owner), Some(())) = (key, name, slug, owner, plan) else {
        return Err(f.refuse());
    };
    let tenant = s.0.app.create_tenant(&ctx, (name, slug), owner.as_ref(), &m.plan, key).await?;
    Ok(v1::CreateTenantResponse { tenant: Some(convert::tenant(&tenant, ctx.now)) })
}

pub(super) async fn get_tenant(
    s: &Services,
    request: Request<v1::GetTenantRequest>,
) -> Result<v1::GetTenantResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    Ok(v1::GetTenantResponse { tenant: Some(convert::tenant(&t.tenant, t.ctx.now)) })
}

pub(super) async fn list_my_tenants(
    s: &Services,
    request: Request<v1::ListMyTenantsRequest>,
) -> Result<v1::ListMyTenantsResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let bounded = m.metrics.len() <= 10 && m.metrics.iter().all(|metric| metric.len() <= 64);
    if !bounded {
        return Err(Error::field("metrics", "must be at most 10 names of metrics"));
    }
    let filter = v1::ListMyTenantsRequest { page_size: 0, page_token: String::new(), ..m.clone() };
    let master = &s.0.app.master;
    let page = Page::read(master, &ctx, None, (m.page_size, &m.page_token), &filter)?;
    let mut mine = s.0.app.list_my_tenants(&ctx, m.active_only, &m.metrics, page.span()).await?;
    let next_page_token = page.cut(master, &mut mine, |mine| mine.row.tenant.tenant_id.0);
    Ok(v1::ListMyTenantsResponse {
        tenants: mine.iter().map(|mine| convert::my_tenant(mine, ctx.now)).collect(),
        next_page_token,
    })
}

pub(super) async fn list_tenants(
    s: &Services,
    request: Request<v1::ListTenantsRequest>,
) -> Result<v1::ListTenantsResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let status = v1::TenantStatus::try_from(m.status).map_err(|_| "must be a status that there is");
    let status = f.read("status", status);
    let plan = f.plan("plan", &m.plan);
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let prefix = m.slug_prefix.len() <= 63 && m.slug_prefix.bytes().all(label);
    let prefix = f.read("slug_prefix", if prefix { Ok(()) } else { Err("must be the beginning of a slug") });
    let (Some(status), Some(()), Some(())) = (status, plan, prefix) else { return Err(f.refuse()) };
    let binding = v1::ListTenantsRequest { page_size: 0, page_token: String::new(), ..m.clone() };
    let master = &s.0.app.master;
    let page = Page::read(master, &ctx, None, (m.page_size, &m.page_token), &binding)?;
    let filter = TenantFilter { status: convert::status_filter(status), plan: m.plan, slug_prefix: m.slug_prefix };
    let mut tenants = s.0.app.list_tenants(&ctx, &filter, page.span()).await?;
    let next_page_token = page.cut(master, &mut tenants, |tenant| tenant.tenant_id.0);
    Ok(v1::ListTenantsResponse {
        tenants: tenants.iter().map(|tenant| convert::tenant(tenant, ctx.now)).collect(),
        next_page_token,
    })
}

pub(super) async fn update_tenant(
    s: &Services,
    request: Request<v1::UpdateTenantRequest>,
) -> Result<v1::UpdateTenantResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let paths = m.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    // Without a mask the fields that are there change (AIP-134).
    let known = paths.iter().all(|path| path == "display_name" || path == "*");
    f.read("update_mask", if known { Ok(()) } else { Err("must name fields that can change: display_name") });
    let name = if known { f.read("display_name", display_name(&m.display_name)) } else { None };
    let (Some(key), Some(name)) = (key, name) else { return Err(f.refuse()) };
    let tenant = s.0.app.update_tenant(&t, name, &m.etag, key).await?;
    Ok(v1::UpdateTenantResponse { tenant: Some(convert::tenant(&tenant, t.ctx.now)) })
}

pub(super) async fn check_slug(
    s: &Services,
    request: Request<v1::CheckSlugRequest>,
) -> Result<v1::CheckSlugResponse, Error> {
    let (_, _, _, m) = s.0.open(request).await?;
    let problem = s.0.app.check_slug(&m.slug).await?;
    Ok(v1::CheckSlugResponse { available: problem.is_none(), problem: problem.unwrap_or_default().to_owned() })
}

pub(super) async fn resolve_tenant(
    s: &Services,
    request: Request<v1::ResolveTenantRequest>,
) -> Result<v1::ResolveTenantResponse, Error> {
    use v1::resolve_tenant_request::By;
    let (_, _, _, m) = s.0.open(request).await?;
    let name = match m.by {
        None => return Err(Error::field("by", "must be a slug or a host")),
        Some(By::Slug(slug)) => TenantName::Slug(Slug::parse(&slug).map_err(|problem| Error::field("slug", problem))?),
        Some(By::Host(host)) => {
            let host = host_name(&host).ok_or_else(|| Error::field("host", "must be a host name"))?;
            let base = s.0.app.base_domain.as_deref().ok_or(Error::TenantNotFound)?;
            let HostClaim::Tenant(name) = tenant_of_host(&host, base) else {
                return Err(Error::TenantNotFound);
            };
            name
        }
    };
    let tenant = s.0.app.resolve_tenant(&name).await?;
    Ok(v1::ResolveTenantResponse {
        tenant_id: tenant.tenant_id.to_string(),
        slug: tenant.slug.as_str().to_owned(),
        display_name: tenant.display_name,
    })
}

pub(super) async fn suspend_tenant(
    s: &Services,
    request: Request<v1::SuspendTenantRequest>,
) -> Result<v1::SuspendTenantResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let reason = f.read("reason", display_name(&m.reason));
    let (Some(key), Some(reason)) = (key, reason) else { return Err(f.refuse()) };
    let tenant = s.0.app.suspend_tenant(&t, reason, key).await?;
    Ok(v1::SuspendTenantResponse { tenant: Some(convert::tenant(&tenant, t.ctx.now)) })
}

pub(super) async fn activate_tenant(
    s: &Services,
    request: Request<v1::ActivateTenantRequest>,
) -> Result<v1::ActivateTenantResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let tenant = s.0.app.activate_tenant(&t, key).await?;
    Ok(v1::ActivateTenantResponse { tenant: Some(convert::tenant(&tenant, t.ctx.now)) })
}

pub(super) async fn delete_tenant(
    s: &Services,
    request: Request<v1::DeleteTenantRequest>,
) -> Result<v1::DeleteTenantResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let tenant = s.0.app.delete_tenant(&t, &m.etag, key).await?;
    Ok(v1::DeleteTenantResponse { tenant: Some(convert::tenant(&tenant, t.ctx.now)) })
}

pub(super) async fn undelete_tenant(
    s: &Services,
    request: Request<v1::UndeleteTenantRequest>,
) -> Result<v1::UndeleteTenantResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let tenant = s.0.app.undelete_tenant(&t, key).await?;
    Ok(v1::UndeleteTenantResponse { tenant: Some(convert::tenant(&tenant, t.ctx.now)) })
}
