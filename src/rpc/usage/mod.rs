//! `UsageService`: decodes, calls the use case, encodes.

mod consume;
mod events;
mod holds;
mod record;
mod reports;

use tonic::{Request, Response, Status, Streaming};

use super::status::respond;
use super::stream::Answers;
use super::{Services, served, v1};

served! { v1::usage_service_server::UsageService:
    consume(ConsumeRequest) -> ConsumeResponse = consume;
    check_quota(CheckQuotaRequest) -> CheckQuotaResponse = consume;
    get_usage(GetUsageRequest) -> GetUsageResponse = consume;
    reserve(ReserveRequest) -> ReserveResponse = holds;
    commit_reservation(CommitReservationRequest) -> CommitReservationResponse = holds;
    release_reservation(ReleaseReservationRequest) -> ReleaseReservationResponse = holds;
    extend_reservation(ExtendReservationRequest) -> ExtendReservationResponse = holds;
    acquire_slot(AcquireSlotRequest) -> AcquireSlotResponse = holds;
    heartbeat_slots(HeartbeatSlotsRequest) -> HeartbeatSlotsResponse = holds;
    release_slot(ReleaseSlotRequest) -> ReleaseSlotResponse = holds;
    refund(RefundRequest) -> RefundResponse = record;
    set_gauge(SetGaugeRequest) -> SetGaugeResponse = record;
    record_usage(RecordUsageRequest) -> RecordUsageResponse = record;
    query_usage(QueryUsageRequest) -> QueryUsageResponse = reports;
    list_usage_events(ListUsageEventsRequest) -> ListUsageEventsResponse = events;
    get_thresholds(GetThresholdsRequest) -> GetThresholdsResponse = reports;
    set_thresholds(SetThresholdsRequest) -> SetThresholdsResponse = reports;
    top_tenants(TopTenantsRequest) -> TopTenantsResponse = reports;
    {
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

        async fn stream_usage(
            &self,
            request: Request<Streaming<v1::StreamUsageRequest>>,
        ) -> Result<Response<v1::StreamUsageResponse>, Status> {
            Box::pin(respond(record::stream_usage(self, request))).await
        }
    }
}
