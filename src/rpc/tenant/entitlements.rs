//! Limits and features.

use tonic::Request;

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn list_limits(
    _: &Services,
    _: Request<v1::ListLimitsRequest>,
) -> Result<v1::ListLimitsResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn set_limit_override(
    _: &Services,
    _: Request<v1::SetLimitOverrideRequest>,
) -> Result<v1::SetLimitOverrideResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn list_features(
    _: &Services,
    _: Request<v1::ListFeaturesRequest>,
) -> Result<v1::ListFeaturesResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn set_feature(
    _: &Services,
    _: Request<v1::SetFeatureRequest>,
) -> Result<v1::SetFeatureResponse, Error> {
    Err(Error::MethodUnknown)
}
