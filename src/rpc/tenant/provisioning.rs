//! Tenants made and ended as a whole, and their flags.

use tonic::Request;

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn provision_tenant(
    _: &Services,
    _: Request<v1::ProvisionTenantRequest>,
) -> Result<v1::ProvisionTenantResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn deprovision_tenant(
    _: &Services,
    _: Request<v1::DeprovisionTenantRequest>,
) -> Result<v1::DeprovisionTenantResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn purge_tenant(
    _: &Services,
    _: Request<v1::PurgeTenantRequest>,
) -> Result<v1::PurgeTenantResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn set_tenant_flags(
    _: &Services,
    _: Request<v1::SetTenantFlagsRequest>,
) -> Result<v1::SetTenantFlagsResponse, Error> {
    Err(Error::MethodUnknown)
}
