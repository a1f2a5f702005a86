//! Plan and subscription.

use tonic::Request;

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn get_subscription(
    _: &Services,
    _: Request<v1::GetSubscriptionRequest>,
) -> Result<v1::GetSubscriptionResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn change_plan(
    _: &Services,
    _: Request<v1::ChangePlanRequest>,
) -> Result<v1::ChangePlanResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn cancel_subscription(
    _: &Services,
    _: Request<v1::CancelSubscriptionRequest>,
) -> Result<v1::CancelSubscriptionResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn resume_subscription(
    _: &Services,
    _: Request<v1::ResumeSubscriptionRequest>,
) -> Result<v1::ResumeSubscriptionResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn renew_subscription(
    _: &Services,
    _: Request<v1::RenewSubscriptionRequest>,
) -> Result<v1::RenewSubscriptionResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn pause_subscription(
    _: &Services,
    _: Request<v1::PauseSubscriptionRequest>,
) -> Result<v1::PauseSubscriptionResponse, Error> {
    Err(Error::MethodUnknown)
}

pub(super) async fn record_billing_event(
    _: &Services,
    _: Request<v1::RecordBillingEventRequest>,
) -> Result<v1::RecordBillingEventResponse, Error> {
    Err(Error::MethodUnknown)
}
