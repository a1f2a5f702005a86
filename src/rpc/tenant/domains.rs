//! Slug and custom domains.

use tonic::Request;

use crate::domain::domain::{Domain, DomainName, DomainStatus};
use crate::domain::name::Slug;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn change_slug(
    s: &Services,
    request: Request<v1::ChangeSlugRequest>,
) -> Result<v1::ChangeSlugResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let slug = f.read("slug", Slug::choose(&m.slug));
    let (Some(key), Some(slug)) = (key, slug) else { return Err(f.refuse()) };
    let changed = s.0.app.change_slug(&t, slug, &m.etag, key).await?;
    Ok(v1::ChangeSlugResponse {
        tenant: Some(convert::tenant(&changed.tenant, t.ctx.now)),
        alias_expire_time: Some(convert::time(changed.alias_until)),
    })
}

pub(super) async fn add_domain(
    s: &Services,
    request: Request<v1::AddDomainRequest>,
) -> Result<v1::AddDomainResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("domain", s.0.app.hosts.choose_domain(&m.domain));
    let (Some(key), Some(name)) = (key, name) else { return Err(f.refuse()) };
    let added = s.0.app.add_domain(&t, name, key).await?;
    Ok(v1::AddDomainResponse { domain: Some(domain(&added)) })
}

pub(super) async fn verify_domain(
    s: &Services,
    request: Request<v1::VerifyDomainRequest>,
) -> Result<v1::VerifyDomainResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("domain", DomainName::parse(&m.domain));
    let (Some(key), Some(name)) = (key, name) else { return Err(f.refuse()) };
    let verified = s.0.app.verify_domain(&t, &name, key).await?;
    Ok(v1::VerifyDomainResponse { domain: Some(domain(&verified)) })
}

pub(super) async fn list_domains(
    s: &Services,
    request: Request<v1::ListDomainsRequest>,
) -> Result<v1::ListDomainsResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let domains = s.0.app.list_domains(&t).await?;
    Ok(v1::ListDomainsResponse { domains: domains.iter().map(domain).collect() })
}

pub(super) async fn remove_domain(
    s: &Services,
    request: Request<v1::RemoveDomainRequest>,
) -> Result<v1::RemoveDomainResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("domain", DomainName::parse(&m.domain));
    let (Some(key), Some(name)) = (key, name) else { return Err(f.refuse()) };
    s.0.app.remove_domain(&t, &name, key).await?;
    Ok(v1::RemoveDomainResponse {})
}

fn domain(domain: &Domain) -> v1::Domain {
    let status = match domain.status {
        DomainStatus::Pending => v1::DomainStatus::Pending,
        DomainStatus::Verified => v1::DomainStatus::Verified,
        DomainStatus::Lapsed => v1::DomainStatus::Lapsed,
    };
    v1::Domain {
        domain: domain.domain.as_str().to_owned(),
        status: status.into(),
        txt_name: domain.domain.txt_name(),
        txt_value: domain.token.clone(),
        verify_time: domain.verified_at.map(convert::time),
        check_time: domain.checked_at.map(convert::time),
        next_check_time: domain.next_check_at.map(convert::time),
        problem: domain.problem.clone(),
        create_time: Some(convert::time(domain.created_at)),
    }
}
