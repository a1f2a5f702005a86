//! `UsageService`: decodes, calls the use case, encodes.

mod consume;
mod holds;
mod record;

use tonic::{Request, Response, Status, Streaming};

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
    {
        async fn stream_usage(
            &self,
            request: Request<Streaming<v1::StreamUsageRequest>>,
        ) -> Result<Response<v1::StreamUsageResponse>, Status> {
            Box::pin(super::status::respond(record::stream_usage(self, request))).await
        }
    }
}
