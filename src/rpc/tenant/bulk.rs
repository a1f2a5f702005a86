//! Import, export, and look-up by external id.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::{Request, Status, Streaming};

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn lookup_external_id(
    _: &Services,
    _: Request<v1::LookupExternalIdRequest>,
) -> Result<v1::LookupExternalIdResponse, Error> {
    Err(Error::MethodUnknown)
}

/// What streams of answers are.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) async fn import_tenants(
    _: &Services,
    _: Request<Streaming<v1::ImportTenantsRequest>>,
) -> Result<Answers<v1::ImportTenantsResponse>, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn export_tenant(
    _: &Services,
    _: Request<v1::ExportTenantRequest>,
) -> Result<Answers<v1::ExportTenantResponse>, Error> {
    Err(Error::MethodUnknown)
}
