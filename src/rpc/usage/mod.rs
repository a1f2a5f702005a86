//! `UsageService`: decodes, calls the use case, encodes.

mod events;
mod reports;

use tonic::{Request, Response, Status};

use super::fields::Fields;
use super::status::respond;
use super::stream::Answers;
use super::{Services, convert, v1};
use crate::app::usage::{Consumption, Who};
use crate::error::Error;

#[tonic::async_trait]
impl v1::usage_service_server::UsageService for Services {
    async fn query_usage(
        &self,
        request: Request<v1::QueryUsageRequest>,
    ) -> Result<Response<v1::QueryUsageResponse>, Status> {
        Box::pin(respond(reports::query_usage(self, request))).await
    }

    async fn list_usage_events(
        &self,
        request: Request<v1::ListUsageEventsRequest>,
    ) -> Result<Response<v1::ListUsageEventsResponse>, Status> {
        Box::pin(respond(events::list_usage_events(self, request))).await
    }

    async fn get_thresholds(
        &self,
        request: Request<v1::GetThresholdsRequest>,
    ) -> Result<Response<v1::GetThresholdsResponse>, Status> {
        Box::pin(respond(reports::get_thresholds(self, request))).await
    }

    async fn set_thresholds(
        &self,
        request: Request<v1::SetThresholdsRequest>,
    ) -> Result<Response<v1::SetThresholdsResponse>, Status> {
        Box::pin(respond(reports::set_thresholds(self, request))).await
    }

    async fn top_tenants(
        &self,
        request: Request<v1::TopTenantsRequest>,
    ) -> Result<Response<v1::TopTenantsResponse>, Status> {
        Box::pin(respond(reports::top_tenants(self, request))).await
    }

    type ExportUsageStream = Answers<v1::ExportUsageResponse>;

    async fn export_usage(
        &self,
        request: Request<v1::ExportUsageRequest>,
    ) -> Result<Response<Self::ExportUsageStream>, Status> {
        Box::pin(respond(events::export_usage(self, request))).await
    }

    type VerifyUsageStream = Answers<v1::VerifyUsageResponse>;

    async fn verify_usage(
        &self,
        request: Request<v1::VerifyUsageRequest>,
    ) -> Result<Response<Self::VerifyUsageStream>, Status> {
        Box::pin(respond(reports::verify_usage(self, request))).await
    }

    async fn consume(&self, request: Request<v1::ConsumeRequest>) -> Result<Response<v1::ConsumeResponse>, Status> {
        Box::pin(respond(async {
            let (t, m) = self.0.enter(request).await?;
            let mut f = Fields::default();
            let amounts = f.amounts(&m.amounts, 1);
            let key = f.idempotency_key(&m.idempotency_key);
            let (Some(amounts), Some(key)) = (amounts, key) else { return Err(f.refuse()) };
            let who = Who::of(&t.ctx.caller);
            let what = Consumption { amounts, key, who, ..Consumption::default() };
            let consumed = self.0.app.consume(&t.ctx, (&t.tenant, &t.catalogue), what).await?;
            Ok(v1::ConsumeResponse { usage: consumed.usage.iter().map(convert::usage).collect() })
        }))
        .await
    }

    async fn get_usage(&self, request: Request<v1::GetUsageRequest>) -> Result<Response<v1::GetUsageResponse>, Status> {
        respond(async {
            let (t, m) = self.0.enter(request).await?;
            if m.metrics.len() > 100 || m.metrics.iter().any(|metric| metric.len() > 64) {
                return Err(Error::field("metrics", "must be at most 100 names of metrics"));
            }
            let usage = self.0.app.get_usage(&t.ctx, (&t.tenant, &t.catalogue), &m.metrics).await?;
            Ok(v1::GetUsageResponse { usage: usage.iter().map(convert::usage).collect() })
        })
        .await
    }
}
