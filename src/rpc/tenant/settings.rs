//! Settings and integrations.

use tonic::Request;

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn get_settings(
    _: &Services,
    _: Request<v1::GetSettingsRequest>,
) -> Result<v1::GetSettingsResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn update_settings(
    _: &Services,
    _: Request<v1::UpdateSettingsRequest>,
) -> Result<v1::UpdateSettingsResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn list_integrations(
    _: &Services,
    _: Request<v1::ListIntegrationsRequest>,
) -> Result<v1::ListIntegrationsResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn set_integration(
    _: &Services,
    _: Request<v1::SetIntegrationRequest>,
) -> Result<v1::SetIntegrationResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn delete_integration(
    _: &Services,
    _: Request<v1::DeleteIntegrationRequest>,
) -> Result<v1::DeleteIntegrationResponse, Error> {
    Err(Error::MethodUnknown)
}
