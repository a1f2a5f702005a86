//! The catalogue: put in force, shown, and its price list.

use tonic::Request;

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn apply_catalogue(
    _: &Services,
    _: Request<v1::ApplyCatalogueRequest>,
) -> Result<v1::ApplyCatalogueResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn get_catalogue(
    _: &Services,
    _: Request<v1::GetCatalogueRequest>,
) -> Result<v1::GetCatalogueResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn list_plans(_: &Services, _: Request<v1::ListPlansRequest>) -> Result<v1::ListPlansResponse, Error> {
    Err(Error::MethodUnknown)
}
