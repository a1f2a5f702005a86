//! Slug and custom domains.

use tonic::Request;

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn change_slug(
    _: &Services,
    _: Request<v1::ChangeSlugRequest>,
) -> Result<v1::ChangeSlugResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn add_domain(_: &Services, _: Request<v1::AddDomainRequest>) -> Result<v1::AddDomainResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn verify_domain(
    _: &Services,
    _: Request<v1::VerifyDomainRequest>,
) -> Result<v1::VerifyDomainResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn list_domains(
    _: &Services,
    _: Request<v1::ListDomainsRequest>,
) -> Result<v1::ListDomainsResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn remove_domain(
    _: &Services,
    _: Request<v1::RemoveDomainRequest>,
) -> Result<v1::RemoveDomainResponse, Error> {
    Err(Error::MethodUnknown)
}
