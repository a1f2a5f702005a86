//! x
#[expect(missing_docs, clippy::pedantic, unreachable_pub, reason = "generated; the protos carry the manual")]
pub mod v1 {
    tonic::include_proto!("tenantry.v1");
}
